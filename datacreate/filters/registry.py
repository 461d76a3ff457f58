"""All filters, in the order in which they run: the cheapest first.

To add a filter, write a module with a `Filter` (exact.py is an example), its settings as fields of `FilterSettings`,
a `Reason` in formats/validate.py, and its line in `FILTERS`. Options, config.json, reports and docs/cli.md follow from
them. The module is imported when the filter is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from datacreate.filters.base import Filter, FilterInputs, FilterSettings

if TYPE_CHECKING:
    from datacreate.formats.validate import Reason
    from datacreate.selection.embeddings import Embedder


@dataclass(frozen=True)
class FilterEntry:
    """A line of the registry. The filter is the class `type_name` of the module `filters/NAME.py`.

    `settings` are fields of `FilterSettings`; the first is None, False or () if the filter is off.
    """

    name: str
    type_name: str
    settings: tuple[str, ...]

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
    """The filters that are switched on, in order."""
    return [entry.type(settings, inputs) for entry in FILTERS if entry.is_on(settings)]


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
