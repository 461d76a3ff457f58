"""The options of the quality checks, which `create` and `filter` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class ShareOrOff(click.ParamType[float | None]):
    """A number above 0 and at most 1; `off` is None."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if value in (None, "off"):
            return None
        try:
            share = float(value)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            self.fail(f"{value}: give a number above 0 and at most 1, or off", param, ctx)
        return share


_CHECKS = [
    click.option("--exact/--no-exact", default=True, help="Drop rows of the same text.  [default: on]"),
    click.option(
        "--semantic",
        type=ShareOrOff(),
        default="off",
        show_default=True,
        metavar="COSINE|off",
        help="Drop rows that say the same, by sentence embeddings.",
    ),
    click.option(
        "--decontaminate",
        multiple=True,
        metavar="all|none|NAME",
        help="Benchmarks whose dev and test rows must not be repeated; may be given again.  "
        "[default: all that are imported]",
    ),
    click.option(
        "--ngram",
        type=click.IntRange(min=2),
        default=8,
        show_default=True,
        help="Words in a row that make a repeat of a benchmark's row.",
    ),
    click.option(
        "--decontaminate-near",
        type=ShareOrOff(),
        default="0.7",
        show_default=True,
        metavar="SHARE|off",
        help="Drop rows that share so much of their words with a benchmark's row.",
    ),
    click.option(
        "--encoder",
        default="all-mpnet-base-v2",
        show_default=True,
        help="Sentence encoder, where texts are compared by meaning: preset name or folder.",
    ),
]


def check_options(*, near: str) -> Callable[[F], F]:
    """The options of the checks, put before those that are there; `near` is what that one is by default."""
    of_near = click.option(
        "--near",
        type=ShareOrOff(),
        default=near,
        show_default=True,
        metavar="SHARE|off",
        help="Drop rows that share so much of their words (0.7, say).",
    )

    def put(command: F) -> F:
        for option in reversed((_CHECKS[0], of_near, *_CHECKS[1:])):
            command = option(command)
        return command

    return put


def names_of(decontaminate: tuple[str, ...]) -> tuple[str, ...] | None:
    """The benchmarks of --decontaminate; None for all. click.UsageError if all or none stands beside others."""
    if {"all", "none"} & set(decontaminate) and len(set(decontaminate)) > 1:
        raise click.UsageError("--decontaminate all and --decontaminate none stand alone")
    if decontaminate == ("none",):
        return ()
    return decontaminate if decontaminate and "all" not in decontaminate else None
