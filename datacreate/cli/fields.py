"""What the command line tells of a format's fields: `--labels` and `--range`, and other FIELD=VALUE."""

from __future__ import annotations

import click

LABELS = click.option(
    "--labels", multiple=True, metavar="FIELD=a,b,c", help="All values that a field may have."
)
RANGES = click.option("--range", "ranges", multiple=True, metavar="FIELD=1..5", help="The range of a number.")


def pairs(given: tuple[str, ...], flag: str) -> dict[str, str]:
    """`FIELD=VALUE` options as a mapping; click.UsageError for one without a field or a value."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise click.UsageError(f"{flag} {text}: write it as FIELD=VALUE")
        found[name.strip()] = value
    return found
