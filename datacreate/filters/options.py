"""The options of all filters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from datacreate.settings import OrOff, Settings, setting

Threshold = Annotated[float | None, OrOff]
"""A similarity above 0 and at most 1; None and the word `off` switch the filter off."""


def threshold_setting(help_text: str, *, default: float | None = None, metavar: str = "SHARE|off") -> Any:
    """A setting that switches a filter on: the least similarity that it rejects."""
    return setting(help_text, "quality", default=default, gt=0, le=1, metavar=metavar)


def _set_names(value: Any) -> Any:
    """The names of sets. A text may have several, separated by commas; a `Path` is one. `none` gives ()."""
    if value is None:
        return None
    entries = [value] if isinstance(value, str) else value
    lists = ([str(entry)] if isinstance(entry, Path) else str(entry).split(",") for entry in entries)
    names = tuple(dict.fromkeys(name.strip() for names_of_entry in lists for name in names_of_entry))
    if "none" in names and len(names) > 1:
        raise ValueError("none cannot be combined with other names")
    return () if names == ("none",) else names


class FilterOptions(Settings):
    """Which filters run, and how strict they are."""

    exact: bool = setting(
        "Reject examples whose inputs (see --inputs) repeat those of an earlier one; case, spacing and the punctuation "
        "of prose are ignored.",
        "quality",
        default=True,
        flag="--exact/--no-exact",
    )
    near: Threshold = threshold_setting(
        "Reject examples whose inputs each have at least this Jaccard similarity to those of an earlier one, computed "
        "on words and word pairs (try 0.7)."
    )
    semantic: Threshold = threshold_setting(
        "Reject examples whose sentence embedding has at least this cosine similarity with an earlier example "
        "(try 0.95).",
        metavar="COSINE|off",
    )
    decontaminate: Annotated[tuple[str, ...] | None, BeforeValidator(_set_names)] = setting(
        "Rows that examples must not repeat: benchmarks (their dev and test rows), files of your own, and runs "
        "(without the check of --ngram).",
        "quality",
        metavar="all|none|NAME|FILE|RUN[,...]",
        shown_default="all imported benchmarks",
    )
    ngram: int = setting(
        "Reject examples that share this many consecutive words with a row of --decontaminate.",
        "quality",
        default=8,
        ge=2,
    )
    decontaminate_near: Threshold = threshold_setting(
        "Reject examples whose inputs each have at least this Jaccard similarity to those of a row of --decontaminate, "
        "computed on words and word pairs.",
        default=0.7,
    )
