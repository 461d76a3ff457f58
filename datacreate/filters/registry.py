"""All filters with their settings, in the order in which they run: the cheapest first.

To add a filter, write a module with a `Filter` (exact.py is an example), its settings as fields of `FilterSettings`, and
its line in `FILTERS`. Options, config.json, reports and docs/cli.md follow from them. The modules are imported when
filters are made, so that `--help` is fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from datacreate.messages import Notify, no_notify
from datacreate.settings import OrOff, Settings, setting

if TYPE_CHECKING:
    from datacreate.filters.base import Filter, FilterInputs
    from datacreate.formats.validate import Reason
    from datacreate.selection.embeddings import Embedder

Threshold = Annotated[float | None, OrOff]
"""A similarity above 0 and at most 1; None and the word `off` switch the filter off."""


def quality(help: str, **options: Any) -> Any:
    """A setting in the quality group of `--help`."""
    return setting(help, "quality", **options)


def threshold(help: str, *, default: float | None = None, metavar: str = "SHARE|off") -> Any:
    """A `Threshold` setting."""
    return quality(help, default=default, gt=0, le=1, metavar=metavar)


def _test_sets(value: Any) -> Any:
    """Names, which may be separated by commas; `none` as ()."""
    if value is None:
        return None
    texts = [value] if isinstance(value, str) else value
    names = tuple(dict.fromkeys(part.strip() for text in texts for part in str(text).split(",")))
    if "none" in names and len(names) > 1:
        raise ValueError("none cannot be combined with other names")
    return () if names == ("none",) else names


class FilterSettings(Settings):
    """Which filters run, and how strict they are."""

    exact: bool = quality(
        "Drop examples whose inputs (all texts but answer and options) repeat those of an earlier one; case, "
        "punctuation and spacing are ignored.",
        default=True,
        flag="--exact/--no-exact",
    )
    near: Threshold = threshold(
        "Drop examples that share at least this fraction of their word shingles with an earlier one (Jaccard; try "
        "0.7)."
    )
    semantic: Threshold = threshold(
        "Drop examples whose sentence embedding has at least this cosine similarity with an earlier example or with "
        "a row of --decontaminate (try 0.95).",
        metavar="COSINE|off",
    )
    decontaminate: Annotated[tuple[str, ...] | None, BeforeValidator(_test_sets)] = quality(
        "Test sets whose rows examples must not repeat: benchmarks (their dev and test rows), and your own files "
        "with rows.",
        metavar="all|none|NAME|FILE[,...]",
        shown_default="all imported benchmarks",
    )
    ngram: int = quality(
        "Drop examples that share this many consecutive words with a row of --decontaminate.", default=8, ge=2
    )
    decontaminate_near: Threshold = threshold(
        "Drop examples that share at least this fraction of their word shingles with a row of --decontaminate.",
        default=0.7,
    )


@dataclass(frozen=True)
class FilterEntry:
    """A line of the registry. The filter is the class `type_name` of the module `filters/NAME.py`."""

    name: str
    type_name: str
    settings: tuple[str, ...]  # fields of `FilterSettings`; the first is None, False or () if the filter is off

    @property
    def type(self) -> type[Filter]:
        """The filter's class; imports its module."""
        found: type[Filter] = getattr(import_module(f"datacreate.filters.{self.name}"), self.type_name)
        return found

    def is_on(self, settings: FilterSettings) -> bool:
        """Whether the filter runs."""
        return bool(getattr(settings, self.settings[0]))


FILTERS = (
    FilterEntry("exact", "ExactDuplicates", ("exact",)),
    FilterEntry("near", "NearDuplicates", ("near",)),
    FilterEntry("semantic", "SemanticDuplicates", ("semantic",)),
    FilterEntry("contamination", "Contamination", ("decontaminate", "ngram", "decontaminate_near")),
)


def make_filters(settings: FilterSettings, inputs: FilterInputs) -> list[Filter]:
    """The filters that are switched on, in order. Raises UsageError if `inputs` lacks what one needs."""
    return [entry.type.make(settings, inputs) for entry in FILTERS if entry.is_on(settings)]


def prepare_filters(filters: Sequence[Filter], notify: Notify = no_notify) -> None:
    """Prepare all filters before the first example. Raises BenchmarkError if held-out rows cannot be read."""
    for filter in filters:
        filter.prepare(notify)


def filter_report(settings: FilterSettings, rejected: Mapping[Reason, int]) -> list[dict[str, Any]]:
    """All filters in order, with their settings and how many examples each rejected."""
    values = settings.model_dump(mode="json")
    return [
        {
            "name": entry.name,
            "reason": (reason := entry.type.reason).value,
            "on": entry.is_on(settings),
            "settings": {name: values[name] for name in entry.settings if not isinstance(values[name], bool)},
            "rejected": rejected.get(reason, 0),
        }
        for entry in FILTERS
    ]


def load_embedder(name_or_path: str) -> tuple[Embedder, str]:
    """An embedding model by preset name or folder, and its SHA-256.

    Raises CheckpointError if it is unknown, not downloaded, or not an embedding model.
    """
    from datacreate.checkpoints import resolve
    from datacreate.selection.embeddings import SentenceEmbedder

    checkpoint = resolve(name_or_path, "encoder")
    return SentenceEmbedder(checkpoint.path), checkpoint.sha256
