"""Semantic duplicates: texts whose sentence embeddings are nearly the same.

The library usearch proposes the nearest examples added before: by exact search while they are few, later by its HNSW
graph (Malkov & Yashunin 2018). It runs on one thread, so that the same additions give the same graph. The cosine
that decides is computed from the rounded vectors.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from datacreate.filters.filter import Filter, FilterResources, Threshold, threshold_setting
from datacreate.formats.reject import RejectReason
from datacreate.settings import Settings

if TYPE_CHECKING:
    from datacreate.formats.candidate import Candidate

MAX_EXACT = 20_000  # up to this number of rows, all are compared; above it, the graph is faster
_PROPOSALS = 8  # the nearest rows, whose cosines are computed
_CHUNK = 8192  # rows added to the index in one call


class SemanticOptions(Settings):
    semantic: Threshold = threshold_setting(
        "Reject examples whose sentence embedding has at least this cosine similarity with an earlier example "
        "(try 0.95).",
        metavar="COSINE|off",
    )


class SemanticDuplicates(Filter):
    """Rejects examples whose embedding is close to an earlier one's."""

    name = "semantic"
    reason = RejectReason.SEMANTIC_DUPLICATE
    option_names = ("semantic",)
    needs_embedder = True
    remaining_if_off = "paraphrases"

    def __init__(self, options: SemanticOptions, resources: FilterResources) -> None:
        assert options.semantic is not None, "the filter is on"
        assert resources.vectors is not None, "the caller loads the embedding model"
        self._threshold = options.semantic
        self._vectors = resources.vectors
        self._numbers = array("q")  # of the request or line of each row of `_vectors`
        self._rows_of_passage: dict[str, list[int]] = {}  # id of a given passage -> the rows about it
        self._number_prefix = resources.number_prefix

    @cached_property
    def _index(self) -> Any:
        from usearch.index import Index

        return Index(ndim=self._vectors.embedder.dimensions, metric="cos", dtype="f16", multi=False)

    def _update_index(self) -> None:
        """Add the rows that were added since the last query; after a resume these are all rows."""
        import numpy as np

        for begin in range(len(self._index), len(self._numbers), _CHUNK):
            end = min(begin + _CHUNK, len(self._numbers))
            self._index.add(np.arange(begin, end), self._vectors.between(begin, end), threads=1)

    def prefetch(self, candidates: Sequence[Candidate]) -> None:
        self._vectors.embedder.encode([candidate.embedding_text for candidate in candidates])

    def find_problem(self, candidate: Candidate) -> str | None:
        from datacreate.selection.embeddings import rounded_cosine, to_float16

        nearest: Iterable[int] = self._rows_of_passage.get(candidate.passage_id, ())
        if not self._numbers or (candidate.passage_id and not nearest):
            return None
        [vector] = to_float16(self._vectors.embedder.encode([candidate.embedding_text]))
        if not candidate.passage_id:
            self._update_index()
            is_small = len(self._index) <= MAX_EXACT
            nearest = self._index.search(vector, _PROPOSALS, threads=1, exact=is_small).keys
        cosines = {row: rounded_cosine(vector, self._vectors[row]) for row in sorted(map(int, nearest))}
        row, cosine = max(cosines.items(), key=itemgetter(1))  # the first of equals
        if cosine < self._threshold:
            return None
        return f"same meaning as {self._number_prefix} {self._numbers[row]}, cosine {cosine:.2f}"

    def add(self, candidate: Candidate, number: int) -> None:
        self._vectors.ensure(len(self._numbers), candidate.embedding_text)
        if candidate.passage_id:
            self._rows_of_passage.setdefault(candidate.passage_id, []).append(len(self._numbers))
        self._numbers.append(number)
