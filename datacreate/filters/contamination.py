"""Decontamination: rejects examples that repeat held-out rows, on which trained models are evaluated.

Three checks, the cheapest first. Word n-grams: a question that shares n consecutive words with a held-out question,
or a passage that shares a large part of its n-grams with a held-out passage (as in Brown et al., 2020, appendix C).
Near-duplicates of held-out questions, by MinHash. The cosine of sentence embeddings, with `--semantic`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

from datacreate.filters.base import Filter, FilterInputs, FilterSettings
from datacreate.filters.held_out import HeldOutRows, HeldOutSet
from datacreate.filters.held_out_embeddings import HeldOutEmbeddings
from datacreate.filters.near import NearIndex
from datacreate.formats.validate import Candidate, Reason
from datacreate.messages import Notify, no_notify

if TYPE_CHECKING:
    from datacreate.selection.embeddings import Embedder


class Contamination(Filter):
    """Finds examples that repeat rows of `held_out`. `near` and `semantic` are thresholds; None is off.

    `model_sha256` names the cache of the rows' embeddings; without it nothing is cached.
    """

    reason = Reason.CONTAMINATED

    def __init__(
        self,
        held_out: Sequence[HeldOutSet],
        *,
        ngram: int = 8,
        near: float | None = None,
        semantic: float | None = None,
        embedder: Embedder | None = None,
        model_sha256: str | None = None,
    ) -> None:
        self._held_out, self._ngram, self._near_threshold = tuple(held_out), ngram, near
        self._semantic, self._embedder, self._model_sha256 = semantic, embedder, model_sha256
        self._notify: Notify = no_notify

    @classmethod
    def make(cls, settings: FilterSettings, inputs: FilterInputs, /) -> Self:
        return cls(
            inputs.held_out,
            ngram=settings.ngram,
            near=settings.decontaminate_near,
            semantic=settings.semantic,
            embedder=inputs.accepted.embedder if inputs.accepted and settings.semantic else None,
            model_sha256=inputs.embedding_sha256,
        )

    def prepare(self, notify: Notify = no_notify) -> None:
        """Read, index and embed the held-out rows. Raises BenchmarkError as `HeldOutSet.rows` does."""
        self._notify = notify
        _ = self.rows, self._near, self._embeddings

    @cached_property
    def rows(self) -> HeldOutRows:
        return HeldOutRows(self._held_out, self._ngram)

    @cached_property
    def _near(self) -> NearIndex | None:
        if self._near_threshold is None:
            return None
        index = NearIndex(self._near_threshold)
        for question in self.rows.questions:
            index.add(question)
        return index

    @cached_property
    def _embeddings(self) -> HeldOutEmbeddings | None:
        if self._semantic is None or self._embedder is None:
            return None
        return HeldOutEmbeddings(self.rows, self._held_out, self._embedder, self._model_sha256, self._notify)

    def prefetch(self, candidates: Sequence[Candidate]) -> None:
        if self._embeddings:
            self._embeddings.prefetch([_question(candidate) for candidate in candidates])

    def match(self, candidate: Candidate) -> str | None:
        """The held-out row that the example repeats, and which check found it."""
        rows, question = self.rows, _question(candidate)
        if (row := rows.repeated_question(question)) is not None:
            return f"{rows.name(row)}: n-gram"
        if candidate.passage and (passage := rows.repeated_passage(candidate.passage)):
            row, share = passage
            return f"{rows.name(row)}: {share:.0%} of the n-grams of the passage"
        if self._near and (near := self._near.match(question)):
            return f"{rows.name(near[0])}: Jaccard {near[1]:.2f}"
        if self._embeddings and self._semantic:
            row, cosine = self._embeddings.nearest(question)
            if cosine >= self._semantic:
                return f"{rows.name(row)}: cosine {cosine:.2f}"
        return None


def _question(candidate: Candidate) -> str:
    """The inputs without the passage, which is compared with passages."""
    return "\n".join(text for text in candidate.inputs if text != candidate.passage) or candidate.text
