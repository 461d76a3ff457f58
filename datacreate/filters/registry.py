"""All filters, in the order in which they run: the cheapest first.

To add a filter, write a module with a `Filter` and its `BaseFilterSettings` (near.py is an example), and add the
settings to the bases of `FilterSettings` below. Options, config.json, reports and docs/cli.md follow from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from datacreate.filters.base import BaseFilterSettings, Filter, FilterInputs, Notify, no_notify
from datacreate.filters.contamination import ContaminationSettings
from datacreate.filters.exact import ExactSettings
from datacreate.filters.near import NearSettings
from datacreate.filters.semantic import SemanticSettings
from datacreate.formats.validate import Reason

if TYPE_CHECKING:
    from datacreate.selection.embeddings import Embedder


class FilterSettings(ContaminationSettings, SemanticSettings, NearSettings, ExactSettings):
    """Which filters run, and how strict they are. The last base runs first (pydantic orders fields so, too)."""


FILTERS = cast("tuple[type[BaseFilterSettings], ...]", FilterSettings.__bases__[::-1])


def is_on(one: type[BaseFilterSettings], settings: FilterSettings) -> bool:
    """Whether the filter runs: its first setting is not None, False or ()."""
    return bool(getattr(settings, one.own_settings()[0]))


def make_filters(settings: FilterSettings, inputs: FilterInputs) -> list[Filter]:
    """The filters that are switched on, in order. Raises UsageError if `inputs` lacks what one needs."""
    return [one.make(settings, inputs) for one in FILTERS if is_on(one, settings)]


def prepare_filters(filters: Sequence[Filter], notify: Notify = no_notify) -> None:
    """Prepare all filters before the first example. Raises BenchmarkError if held-out rows cannot be read."""
    for each in filters:
        each.prepare(notify)


def filter_report(settings: FilterSettings, rejected: Mapping[Reason, int]) -> list[dict[str, Any]]:
    """All filters in order, with their settings and how many examples each rejected."""
    values = settings.model_dump(mode="json")
    return [
        {
            "name": one.filter_name,
            "reason": one.reason.value,
            "on": is_on(one, settings),
            "settings": {
                name: values[name] for name in one.own_settings() if not isinstance(values[name], bool)
            },
            "rejected": rejected.get(one.reason, 0),
        }
        for one in FILTERS
    ]


def load_embedder(name_or_path: str) -> tuple[Embedder, str]:
    """An embedding model by preset name or folder, and its SHA-256.

    Raises CheckpointError if it is unknown, not downloaded, or not an embedding model.
    """
    from datacreate.checkpoints import resolve
    from datacreate.selection.embeddings import SentenceEmbedder

    checkpoint = resolve(name_or_path, "encoder")
    return SentenceEmbedder(checkpoint.path), checkpoint.sha256
