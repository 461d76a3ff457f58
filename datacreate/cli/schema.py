"""`datacreate schema` and `datacreate attributes`: what `create` reads besides examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from datacreate.cli.options import Command, config_option, path_argument, path_option, settings_options
from datacreate.cli.terminal import echo, print_json, say
from datacreate.engines import EngineOptions
from datacreate.formats import ExampleOptions, FormatOptions
from datacreate.runs.config import CreateConfig, GeneratorOptions


@click.group()
def schema() -> None:
    """Infer a task format from examples, or check a format file."""


@schema.command(cls=Command)
@path_argument("example")
@settings_options(FormatOptions, "fields", without=("format",))
def infer(example: Path, fields: dict[str, Any]) -> None:
    """Print the format inferred from EXAMPLE, a file with one or several, to edit and use with --format."""
    from datacreate.runs.formatting_examples import read_examples

    _, inferred = read_examples([example], FormatOptions.of(**fields))
    for note in inferred.notes:
        say(note)
    print_json(inferred.format.document())


@schema.command(cls=Command)
@click.argument("file")
@path_option("--example", group="input", help="Example to validate, or several in one file.")
def check(file: str, example: Path | None) -> None:
    """Check whether FILE (a file or a shipped name) is a valid format, and whether --example is valid in it."""
    from datacreate.formats.task_format import load_format
    from datacreate.runs.formatting_examples import read_examples

    if example is None:
        echo(f"format {load_format(file).name}: valid")
        return
    for note in read_examples([example], FormatOptions(format=file))[1].notes:
        echo(note)


class _SuggestOptions(EngineOptions, GeneratorOptions, FormatOptions, ExampleOptions):
    """The options of `create` that decide what a model proposes."""


@click.group()
def attributes() -> None:
    """Propose the dimensions and values of --attributes."""


@attributes.command(cls=Command)
@settings_options(_SuggestOptions)
@config_option
def suggest(given_options: dict[str, Any]) -> None:
    """Let the model propose dimensions and values for --attributes; prints YAML to edit.

    \b
    datacreate attributes suggest --example mine.json >attributes.yaml
    datacreate create --example mine.json --attributes attributes.yaml --count 100
    """
    from datacreate.commands.attribute_suggestion import suggest_attributes

    config = CreateConfig.of(count=1, verify="off", decontaminate=(), **given_options)  # no example is created
    echo(suggest_attributes(config, say).rstrip("\n"))
