"""Near-duplicates: texts that have most of their words and word pairs in common.

MinHash (Broder, 1997; signatures by the library rensa) with locality-sensitive hashing proposes
accepted texts; what is proposed is confirmed by the Jaccard similarity of the shingles themselves,
so that what is dropped does not hang on the hashing.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from rensa import RMinHash

from datacreate.errors import UsageError
from datacreate.filters.base import Filter, Match
from datacreate.filters.lsh import Bands, Hashes
from datacreate.filters.ngrams import words
from datacreate.formats.validate import Candidate, Reason

BANDS = 32

MOST_ROWS = 8
"""Hashes in a band at most: beyond, longer signatures cost more than fewer false proposals save."""

LEAST_RECALL = 0.97
"""Chance, by the usual formula, with which a pair just at the threshold is proposed; 0.95 is measured."""

MOST_SHINGLES = 128
"""Of a text's shingles that are kept. Up to so many (64 words) Jaccard is exact; of a longer text the
smallest hashes stand for all (bottom-k, Broder 1997), and its standard error is below 0.045."""

_SEED = 1

_ONE_BY_ONE = 4
"""Proposals up to which asking each is cheaper than numpy's calls."""

_POWERS = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, MOST_ROWS + 1, dtype=np.uint64)


class NearIndex:
    """Texts, numbered from 0, and the one that a text is most like.

    The order of words beyond pairs, case and punctuation count for nothing. At a Jaccard similarity
    of `threshold` at least 0.95 of pairs are found, above it more; below it none, texts of more
    than 64 words aside, whose similarity is estimated.
    """

    def __init__(self, threshold: float) -> None:
        """`threshold` is in (0, 1]; UsageError if it is not."""
        if not 0 < threshold <= 1:
            raise UsageError(f"the threshold of near-duplicates is above 0 and at most 1: not {threshold:g}")
        self._threshold = threshold
        self._rows_per_band = rows_per_band(threshold)
        self._bands = Bands(BANDS)
        self._shingles = array("I")
        self._starts = array("q", [0])
        self._last: tuple[str, Sequence[int], Hashes] | None = None

    def __len__(self) -> int:
        return len(self._bands)

    def match(self, text: str) -> tuple[int, float] | None:
        """The number of the text that is most alike, the first of equals, and its Jaccard similarity."""
        own, hashes = self._read(text)
        best = None
        for row in self._likely(own, self._bands.find(hashes)):
            alike = jaccard(own, self._shingles[self._starts[row] : self._starts[row + 1]])
            if alike >= self._threshold and (best is None or alike > best[1]):
                best = (row, alike)
        return best

    def _likely(self, own: Sequence[int], rows: list[int]) -> list[int]:
        """Those of the rows that may be alike enough: many of them are looked at in one go."""
        if len(rows) <= _ONE_BY_ONE:
            return rows
        kept, starts = np.frombuffer(self._shingles, np.uint32), np.frombuffer(self._starts, np.int64)
        begin = starts[rows]
        sizes = starts[np.add(rows, 1)] - begin
        offsets = np.cumsum(sizes) - sizes
        pieces = kept[np.repeat(begin - offsets, sizes) + np.arange(sizes.sum())]
        common = np.add.reduceat(np.isin(pieces, np.array(own, np.uint32)), offsets, dtype=np.int64)
        alike = common >= self._threshold * (len(own) + sizes - common) - 1e-9
        sketched = (sizes == MOST_SHINGLES) | (len(own) == MOST_SHINGLES)  # common says too little of these
        return [row for row, likely in zip(rows, alike | sketched, strict=True) if likely]

    def add(self, text: str) -> None:
        """Take in the next text."""
        own, hashes = self._read(text)
        self._bands.add(hashes)
        self._shingles.extend(own)
        self._starts.append(len(self._shingles))

    def _read(self, text: str) -> tuple[Sequence[int], Hashes]:
        """The text's shingles as `sketch` gives them, and the hashes of its bands."""
        if self._last is None or self._last[0] != text:  # what is accepted was asked about just before
            pieces = shingles(text)
            signature = RMinHash(BANDS * self._rows_per_band, _SEED)
            signature.update(pieces)
            rows = np.array(signature.digest(), np.uint64).reshape(BANDS, self._rows_per_band)
            hashes = (rows @ _POWERS[: self._rows_per_band]) >> np.uint64(32)
            self._last = (text, sketch(pieces), hashes.astype(np.uint32))
        return self._last[1:]


class NearDuplicates(Filter):
    """A `Filter` by a `NearIndex` of what was accepted."""

    reason = Reason.NEAR_DUPLICATE

    def __init__(self, threshold: float) -> None:
        self._index = NearIndex(threshold)

    def match(self, candidate: Candidate) -> Match | None:
        found = self._index.match(candidate.key)
        return Match(f"like example {found[0] + 1}, Jaccard {found[1]:.2f}") if found else None

    def add(self, candidate: Candidate) -> None:
        self._index.add(candidate.key)


def rows_per_band(threshold: float) -> int:
    """As many as keep `LEAST_RECALL` at the threshold: a pair of similarity s shares one of b bands of r
    rows with the chance 1 - (1 - s^r)^b."""
    for rows in range(MOST_ROWS, 1, -1):
        if 1 - (1 - threshold**rows) ** BANDS >= LEAST_RECALL:
            return rows
    return 1


def shingles(text: str) -> list[str]:
    """Words and pairs of neighbouring words; of a text without words, the text itself."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # halves of characters: rensa takes none
    found = words(text)
    return found + [f"{one} {next}" for one, next in pairwise(found)] or [text]


def sketch(pieces: Sequence[str]) -> Sequence[int]:
    """The `MOST_SHINGLES` smallest of the shingles' 32-bit hashes, ascending, each once."""
    [hashes] = RMinHash.hash_token_sets([pieces])
    return sorted({one >> 32 for one in hashes})[:MOST_SHINGLES]


def jaccard(one: Sequence[int], other: Sequence[int]) -> float:
    """Of two sketches: what they have in common by what they have at all, as far as both reach."""
    reach = min((kept[-1] for kept in (one, other) if len(kept) == MOST_SHINGLES), default=None)
    a, b = set(one), set(other)
    if reach is not None:
        a, b = {x for x in a if x <= reach}, {x for x in b if x <= reach}
    common = len(a & b)
    return common / (len(a) + len(b) - common)
