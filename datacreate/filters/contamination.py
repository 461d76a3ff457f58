"""Decontamination: rejects examples that repeat held-out rows, on which trained models are evaluated.

Three checks, the cheapest first. Word n-grams: a question that shares n consecutive words with a held-out question,
or a passage that shares a large part of its n-grams with a held-out passage (as in Brown et al., 2020, appendix C).
Near-duplicates of held-out rows, by MinHash. The cosine of sentence embeddings, with `--semantic`. The last two compare
whole inputs, or only the questions with a row that has no passage.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from datacreate.filters.base import Filter, FilterInputs, FilterSettings, HeldOutSet
from datacreate.filters.held_out import HeldOutRows
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
        self._held_out, self._ngram, self._near = tuple(held_out), ngram, near
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
        """Read, index and embed the held-out rows. Raises what the sets raise."""
        self._notify = notify
        _ = self._texts

    @cached_property
    def rows(self) -> HeldOutRows:
        return HeldOutRows(self._held_out, self._ngram)

    @cached_property
    def _texts(self) -> tuple[_Texts, _Texts]:
        """The rows without and with a passage."""
        return self._indexed(with_passage=False), self._indexed(with_passage=True)

    def _indexed(self, *, with_passage: bool) -> _Texts:
        rows, near = self.rows, None if self._near is None else NearIndex(self._near)
        numbers = [number for number, row in enumerate(rows.rows) if bool(row.passage) == with_passage]
        texts = ["\n".join(rows.rows[number].inputs) for number in numbers]
        if near:
            for number in numbers:
                near.add(rows.rows[number].inputs)
        embeddings = None
        if self._semantic is not None and self._embedder is not None and texts:
            bounds = pairwise(bisect_left(numbers, begin) for begin in rows.begins)
            titles = (each.ref.title for each in rows.sets)
            parts = [(title, texts[begin:end]) for title, (begin, end) in zip(titles, bounds, strict=True)]
            embeddings = HeldOutEmbeddings(parts, self._embedder, self._model_sha256, self._notify)
        return _Texts(numbers, near, embeddings)

    def _compared(self, candidate: Candidate) -> Iterator[tuple[_Texts, tuple[str, ...]]]:
        """The rows to compare the example with, and the inputs that it is compared by."""
        questions, whole = self._texts
        if inputs := tuple(text for text in candidate.inputs if text != candidate.passage):
            yield questions, inputs
        if candidate.passage:
            yield whole, candidate.inputs

    def prefetch(self, candidates: Sequence[Candidate]) -> None:
        if self._embedder:
            pairs = (pair for candidate in candidates for pair in self._compared(candidate))
            self._embedder.encode(["\n".join(inputs) for texts, inputs in pairs if texts.embeddings])

    def match(self, candidate: Candidate) -> str | None:
        """The held-out row that the example repeats, and which check found it."""
        rows = self.rows
        if (row := rows.repeated_question(candidate.question)) is not None:
            return f"{rows.name(row)}: n-gram"
        if candidate.passage and (passage := rows.repeated_passage(candidate.passage)):
            row, share = passage
            return f"{rows.name(row)}: {share:.0%} of the n-grams of the passage"
        for texts, inputs in self._compared(candidate):
            if texts.near and (near := texts.near.match(inputs)):
                return f"{rows.name(texts.rows[near[0]])}: Jaccard {near[1]:.2f}"
        for texts, inputs in self._compared(candidate):
            if texts.embeddings and self._semantic:
                nearest, cosine = texts.embeddings.nearest("\n".join(inputs))
                if cosine >= self._semantic:
                    return f"{rows.name(texts.rows[nearest])}: cosine {cosine:.2f}"
        return None


@dataclass(frozen=True)
class _Texts:
    """Held-out rows that are compared by texts of the same kind. The indexes number them from 0."""

    rows: Sequence[int]  # their numbers in `HeldOutRows`
    near: NearIndex | None
    embeddings: HeldOutEmbeddings | None
