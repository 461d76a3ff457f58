"""From settings to filters, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from datacreate.errors import UsageError
from datacreate.filters.base import Filter, Say, silently
from datacreate.filters.contamination import Contamination
from datacreate.filters.exact import ExactDuplicates
from datacreate.filters.held_out_sets import HeldOutSet
from datacreate.filters.near import NearDuplicates
from datacreate.filters.settings import FilterSettings

if TYPE_CHECKING:
    from datacreate.selection.accepted_vectors import AcceptedVectors
    from datacreate.selection.embeddings import Embedder


def filters_of(
    settings: FilterSettings,
    held_out_sets: Sequence[HeldOutSet],
    accepted: AcceptedVectors | None = None,
    encoder_sha256: str | None = None,
) -> list[Filter]:
    """The filters that the settings ask for, the cheapest first: exact, near, semantic, contamination.

    `accepted`, which embeds, is needed where `settings.semantic` is set. Under `encoder_sha256` the home
    keeps the embeddings of benchmarks' rows. Raises UsageError if `accepted` is missing.
    """
    filters: list[Filter] = []
    if settings.exact:
        filters.append(ExactDuplicates())
    if settings.near is not None:
        filters.append(NearDuplicates(settings.near))
    if settings.semantic is not None:
        from datacreate.filters.semantic import SemanticDuplicates

        if accepted is None:
            raise UsageError("semantic duplicates need a sentence encoder; give one with --encoder")
        filters.append(SemanticDuplicates(settings.semantic, accepted))
    if held_out_sets:
        filters.append(
            Contamination(
                held_out_sets,
                ngram=settings.ngram,
                near=settings.decontaminate_near,
                semantic=settings.semantic,
                embedder=accepted.embedder if accepted and settings.semantic else None,
                encoder_sha256=encoder_sha256,
            )
        )
    return filters


def prepare(filters: Sequence[Filter], say: Say = silently) -> None:
    """Do what takes long or may fail before the first row is there; `say` is told what takes long.

    Raises BenchmarkError if a benchmark's rows cannot be read.
    """
    for each in filters:
        each.prepare(say)


def embedder_of(name_or_path: str) -> tuple[Embedder, str]:
    """The sentence encoder of a preset's name or a folder, and its SHA-256.

    Raises CheckpointError if it is unknown, not here, or no encoder.
    """
    from datacreate.checkpoints import resolve
    from datacreate.selection.embeddings import SentenceEmbedder

    checkpoint = resolve(name_or_path, "encoder")
    return SentenceEmbedder(checkpoint.path), checkpoint.sha256
