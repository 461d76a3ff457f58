"""From settings to filters, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from datacreate.errors import UsageError
from datacreate.quality.contamination import Contamination
from datacreate.quality.duplicates import ExactDuplicates
from datacreate.quality.filters import Filter, Say, silently
from datacreate.quality.near import NearDuplicates
from datacreate.quality.opponents import Opponent
from datacreate.runs.filters import FilterSettings

if TYPE_CHECKING:
    from datacreate.selection.accepted import AcceptedVectors
    from datacreate.selection.embedding import Embedder


def filters_of(
    settings: FilterSettings,
    opponents: Sequence[Opponent],
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
        from datacreate.quality.semantic import SemanticDuplicates

        if accepted is None:
            raise UsageError("semantic duplicates need a sentence encoder; give one with --encoder")
        filters.append(SemanticDuplicates(settings.semantic, accepted))
    if opponents:
        filters.append(
            Contamination(
                opponents,
                ngram=settings.ngram,
                near=settings.against_near,
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
    from datacreate.selection.embedding import SentenceEmbedder

    checkpoint = resolve(name_or_path, "encoder")
    return SentenceEmbedder(checkpoint.path), checkpoint.sha256
