"""`datacreate attributes`: let a model propose the dimensions of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from datacreate.cli.options import Command, check_new_file, config_option, path_option, settings_options
from datacreate.cli.terminal import echo, say
from datacreate.engines.settings import EngineOptions
from datacreate.formats.options import ExampleOptions, FormatOptions
from datacreate.runs.config import CreateConfig, GeneratorOptions, SamplingOptions


class _SuggestOptions(SamplingOptions, EngineOptions, GeneratorOptions, FormatOptions, ExampleOptions):
    """The options of `create` that decide what a model proposes."""


@click.group()
def attributes() -> None:
    """Propose the dimensions and values of --attributes."""


@attributes.command(cls=Command)
@settings_options(_SuggestOptions)
@path_option("-o", "--out", group="output", help="File to write; it must not exist.  [default: print it]")
@config_option
def suggest(settings: dict[str, Any], out: Path | None) -> None:
    """Let the model propose dimensions and values for --attributes, as YAML to edit.

    \b
    datacreate attributes suggest --example mine.json -o attributes.yaml
    datacreate create --example mine.json --attributes attributes.yaml --count 100
    """
    from datacreate.attribute_suggestion import suggest_attributes
    from datacreate.files import replace_file

    if out:
        check_new_file("--out", out)
    unused: dict[str, Any] = {"count": 1, "run_dir": Path("unused"), "verify": "off", "decontaminate": ()}
    text = suggest_attributes(CreateConfig.of(**unused, **settings), say)
    if out:
        replace_file(out, text)
        echo(str(out))
    else:
        echo(text.rstrip("\n"))
