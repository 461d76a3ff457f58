"""The commands. Each is imported when it is used, so that `datacreate --help` is fast."""

from __future__ import annotations

import os
from importlib import import_module

import click

from datacreate.errors import OTHER_WRITER, SWEEP_STEP, DatacreateError, LockLost, RunLocked
from datacreate.libraries import NO_TELEMETRY

COMMANDS: dict[str, str] = {
    "create": "Make a training set from one example.",
    "preview": "Show a few examples; write nothing.",
    "show": "Show a run: summary, samples, shortcuts, diversity.",
    "review": "Accept, reject and edit a run's rows in a terminal.",
    "export": "Write a run's examples in another layout.",
    "attributes": "Let a model propose dimensions and values for --attributes.",
    "filter": "Reject duplicates, test-set rows and rows with improbable labels.",
    "schema": "Infer or check a task format.",
    "models": "List and download models.",
    "benchmarks": "List and import the ten test sets.",
    "improve": "Create more examples from the rows that students get wrong.",
    "train": "Fine-tune an encoder on a training set.",
    "evaluate": "Measure fine-tuned encoders on test sets.",
    "report": "Tables, comparisons and one page of all results.",
    "sweep": "Run a grid of experiments: create, train, evaluate.",
    "serve": "Serve a model over HTTP, for other runs and machines.",
    "doctor": "Check this machine: software, GPUs, storage, models, servers.",
}
"""Command -> its line in the list."""

_MODULES = {"preview": "create", "attributes": "schema"}
"""Command -> its module in this package, if that has another name."""


class LazyGroup(click.Group):
    """The group of all commands, which are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"datacreate.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    commands={name: click.Command(name) for name in COMMANDS},  # their names, which click suggests
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "DATACREATE",
    },
)
@click.version_option(package_name="datacreate", message="%(prog)s %(version)s")
def datacreate() -> None:
    """Training data from one formatting example, written by a language model on your own hardware.

    \b
    datacreate models pull qwen2.5-coder-1.5b-instruct
    datacreate create --example mine.json --count 100
    datacreate show runs/mine-best

    Exit codes: 0 done, 1 failed, 2 wrong usage, 75 stopped and resumable.
    """


def run() -> tuple[str, int]:
    """Run the command line; returns the error line, or an empty text, and the exit code."""
    os.environ.update(NO_TELEMETRY)
    try:
        datacreate.main(prog_name="datacreate", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return "", 2
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx else "datacreate"
        return f"{error.format_message()} (see {name} --help)", 2
    except click.ClickException as error:
        return error.format_message(), error.exit_code
    except DatacreateError as error:
        has_other_writer = SWEEP_STEP in os.environ and isinstance(error, (RunLocked, LockLost))
        return str(error), OTHER_WRITER if has_other_writer else error.exit_code
    except OSError as error:  # without a better message
        where = error.filename or error.filename2 or "the output"
        return f"{where}: {error.strerror or error}; fix that and run the same command again", 1
    return "", 0
