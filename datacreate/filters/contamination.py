"""Decontamination: rejects examples that repeat held-out rows, on which trained models are evaluated.

Three checks, the cheapest first. Word n-grams: a question that shares n consecutive words with a held-out question,
or a passage that shares a large part of its n-grams with a held-out passage (as in Brown et al., 2020, appendix C).
Near-duplicates of held-out rows, by MinHash. The cosine of sentence embeddings, with `--semantic`. The last two compare
whole inputs, or only the questions with a row that has no passage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datacreate.filters.base import Filter, FilterInputs, FilterSettings
from datacreate.filters.held_out import HeldOutRows, embed_texts
from datacreate.filters.near import NearIndex
from datacreate.filters.semantic import most_similar
from datacreate.formats.validate import Candidate, Reason
from datacreate.messages import Notify, no_notify
from datacreate.selection.accepted_vectors import to_float16

_PROPOSALS = 16  # rows whose cosine is computed from rounded vectors


@dataclass(frozen=True)
class _Texts:
    """The held-out rows with a passage, or those without. Indexes number them from 0."""

    rows: Sequence[int]  # their numbers in `HeldOutRows`
    near: NearIndex | None
    vectors: NDArray[np.float32] | None  # (rows, dim)


class Contamination(Filter):
    """Finds examples that repeat rows of the test sets."""

    reason = Reason.CONTAMINATED

    def __init__(self, settings: FilterSettings, inputs: FilterInputs) -> None:
        self._settings, self._sets, self._model_sha256 = settings, inputs.held_out, inputs.embedding_sha256
        self._embedder = inputs.accepted.embedder if inputs.accepted and settings.semantic else None

    def prepare(self, notify: Notify = no_notify) -> None:
        """Read, index and embed the held-out rows. Raises what the sets raise."""
        self._rows = HeldOutRows(self._sets, self._settings.ngram)
        vectors = None
        if self._embedder and self._rows.rows:
            pieces = [
                embed_texts(each.ref.title, texts, self._embedder, self._model_sha256, notify)
                for each, texts in self._rows.texts()
            ]
            vectors = np.concatenate(pieces).astype(np.float32)
        self._texts = [self._indexed(vectors, has_passage) for has_passage in (False, True)]

    def _indexed(self, vectors: NDArray[np.float32] | None, has_passage: bool) -> _Texts:
        threshold = self._settings.decontaminate_near
        near = None if threshold is None else NearIndex(threshold)
        numbers = [i for i, row in enumerate(self._rows.rows) if bool(row.passage) == has_passage]
        if near:
            for number in numbers:
                near.add(self._rows.rows[number].inputs)
        return _Texts(numbers, near, vectors[numbers] if vectors is not None and numbers else None)

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
            self._embedder.encode(["\n".join(inputs) for texts, inputs in pairs if texts.vectors is not None])

    def match(self, candidate: Candidate) -> str | None:
        """The held-out row that the example repeats, and which check found it."""
        rows = self._rows
        if (row := rows.repeated_question(candidate.question)) is not None:
            return f"{rows.name(row)}: n-gram"
        if candidate.passage and (passage := rows.repeated_passage(candidate.passage)):
            row, share = passage
            return f"{rows.name(row)}: {share:.0%} of the n-grams of the passage"
        for texts, inputs in self._compared(candidate):
            if texts.near and (near := texts.near.match(inputs)):
                return f"{rows.name(texts.rows[near[0]])}: Jaccard {near[1]:.2f}"
        for texts, inputs in self._compared(candidate):
            if self._embedder and texts.vectors is not None and self._settings.semantic:
                [vector] = to_float16(self._embedder.encode(["\n".join(inputs)]))
                proposed = np.argsort(texts.vectors @ vector.astype(np.float32))[-_PROPOSALS:]
                nearest, cosine = most_similar(vector, proposed, texts.vectors.__getitem__)
                if cosine >= self._settings.semantic:
                    return f"{rows.name(texts.rows[nearest])}: cosine {cosine:.2f}"
        return None
