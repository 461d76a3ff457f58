"""Contamination: created examples that repeat rows on which what is trained on them is measured.

Three ways, the cheapest first. Word n-grams: a question that has eight words in a row in common with a
held-out question, or a passage of which a good part stands in a held-out passage (the usual rule of
reports on language models, there with n from 8 to 13: Brown et al., 2020, appendix C). Near: most of
the question's shingles, by MinHash. In meaning: the cosine of sentence embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from datacreate.filters.base import Filter, Match, Say, silently
from datacreate.filters.held_out import HeldOut
from datacreate.filters.held_out_embeddings import HeldOutMeanings
from datacreate.filters.held_out_sets import HeldOutSet
from datacreate.filters.near import NearIndex
from datacreate.formats.validate import Candidate, Reason

if TYPE_CHECKING:
    from datacreate.selection.embeddings import Embedder


class Contamination(Filter):
    """A `Filter` against the rows of `held_out_sets`; `near` and `semantic` are thresholds, None switches off.

    The rows are read by `prepare`, which raises what `read_split` raises. Embeddings of theirs are kept
    in the home under `encoder_sha256`, if it is given.
    """

    reason = Reason.CONTAMINATED

    def __init__(
        self,
        held_out_sets: Sequence[HeldOutSet],
        *,
        ngram: int = 8,
        near: float | None = None,
        semantic: float | None = None,
        embedder: Embedder | None = None,
        encoder_sha256: str | None = None,
    ) -> None:
        self._opponents, self._ngram, self._near_threshold = tuple(held_out_sets), ngram, near
        self._semantic, self._embedder, self._encoder_sha256 = semantic, embedder, encoder_sha256
        self._say: Say = silently

    def prepare(self, say: Say = silently) -> None:
        """Read the rows, index them, and embed those that nobody has embedded before, telling how far it is.

        Raises BenchmarkError as `read_split` does.
        """
        self._say = say
        _ = self.rows, self._near, self._meanings

    @cached_property
    def rows(self) -> HeldOut:
        """The rows compared with."""
        return HeldOut(self._opponents, self._ngram)

    @cached_property
    def _near(self) -> NearIndex | None:
        if self._near_threshold is None:
            return None
        index = NearIndex(self._near_threshold)
        for question in self.rows.questions:
            index.add(question)
        return index

    @cached_property
    def _meanings(self) -> HeldOutMeanings | None:
        if self._semantic is None or self._embedder is None:
            return None
        return HeldOutMeanings(self.rows, self._opponents, self._embedder, self._encoder_sha256, self._say)

    def ahead(self, candidates: Sequence[Candidate]) -> None:
        """Compare all of them in meaning, in one go."""
        if self._meanings:
            self._meanings.ahead([candidate.text for candidate in candidates])

    def match(self, candidate: Candidate) -> Match | None:
        """The held-out row that a candidate repeats, and in which way; None if it repeats none."""
        rows = self.rows
        if (row := rows.repeated_question(candidate.text)) is not None:
            return Match(f"{rows.name(row)}: n-gram")
        if candidate.passage and (passage := rows.repeated_passage(candidate.passage)):
            row, share = passage
            return Match(f"{rows.name(row)}: {share:.0%} of the passage's n-grams")
        if self._near and (near := self._near.match(candidate.text)):
            return Match(f"{rows.name(near[0])}: near {near[1]:.2f}")
        if self._meanings and self._semantic:
            row, cosine = self._meanings.nearest(candidate.text)
            if cosine >= self._semantic:
                return Match(f"{rows.name(row)}: meaning {cosine:.2f}")
        return None

    def add(self, candidate: Candidate) -> None:
        """Nothing: what is accepted is no test row."""
