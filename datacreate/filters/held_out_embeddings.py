"""Held-out questions by their meaning: sentence embeddings, made once for each split and encoder.

data_dir()/embeddings/ENCODER/SPLIT.npy    float16, (rows, dim); both named by 16 digits of their SHA-256

All of them are compared: many texts in one matrix product, few by the library usearch, which reads half
the bytes. Both propose; the cosine that decides is reckoned from the rounded vectors, so that a text's
answer is the same alone and among others.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datacreate.filters.base import Say, silently
from datacreate.filters.held_out import HeldOut
from datacreate.filters.held_out_sets import HeldOutSet
from datacreate.filters.semantic import cosine
from datacreate.paths import data_dir
from datacreate.selection.embeddings import REMEMBERED
from datacreate.selection.vectors import Half, rounded

if TYPE_CHECKING:
    from datacreate.selection.embeddings import Embedder

_AT_ONCE = 256  # texts in one product: beyond, it is no faster

_FEW = 16
"""Texts from which the product is the faster one. Of 18,695 rows, on two cores that others use too, it
compares half to a quarter as many a second as usearch by fives, and two to three times as many by 256."""

_PIECE = 1024  # questions embedded between two looks at the clock

_SAY_SECONDS = 10.0

_UNSURE = 1e-5  # more than the sums of a product differ by their order

_PROPOSED = 16  # rows at most whose cosines are reckoned


class HeldOutMeanings:
    """The embeddings of held-out questions, to be asked for the nearest one."""

    def __init__(
        self,
        rows: HeldOut,
        held_out_sets: Sequence[HeldOutSet],
        embedder: Embedder,
        encoder_sha256: str | None = None,
        say: Say = silently,
    ) -> None:
        """Embed what no earlier process has embedded; without the encoder's hash, all."""
        self._embedder = embedder
        pieces, begin = [], 0
        for opponent, number in zip(held_out_sets, rows.numbers, strict=True):
            questions = rows.questions[begin : begin + number]
            pieces.append(_vectors(opponent, questions, embedder, encoder_sha256, say))
            begin += number
        self._rounded = np.concatenate(pieces)
        self._vectors = self._rounded.astype(np.float32)
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def nearest(self, text: str) -> tuple[int, float]:
        """The row whose question is nearest to `text`, the first of equals, and their cosine."""
        self.ahead([text])
        return self._known[text]

    def ahead(self, texts: Sequence[str]) -> None:
        """Find the nearest rows of all these texts, to be asked for one by one."""
        for text in texts:
            if text in self._known:
                self._known.move_to_end(text)
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for begin in range(0, len(new), _AT_ONCE):
            asked = new[begin : begin + _AT_ONCE]
            vectors = rounded(self._embedder.encode(asked))
            propose = self._by_library if len(asked) < _FEW else self._by_product
            for text, vector, rows in zip(asked, vectors, propose(vectors), strict=True):
                self._known[text] = self._best(vector, rows)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _by_product(self, vectors: Half) -> Iterator[list[int]]:
        for cosines in vectors.astype(np.float32) @ self._vectors.T:
            yield np.flatnonzero(cosines >= cosines.max() - _UNSURE)[:_PROPOSED].tolist()

    def _by_library(self, vectors: Half) -> Iterator[list[int]]:
        from usearch.index import MetricKind, search

        number = min(_PROPOSED, len(self._rounded))
        found = search(self._rounded, vectors, number, MetricKind.IP, exact=True, threads=1)
        for rows in found.keys.reshape(-1, number):  # all of them: some processors add up in float16
            yield sorted(rows.tolist())

    def _best(self, vector: Half, rows: list[int]) -> tuple[int, float]:
        cosines = [cosine(vector, self._rounded[row]) for row in rows]
        best = max(range(len(rows)), key=cosines.__getitem__)  # the first of equals
        return rows[best], cosines[best]


def _vectors(
    opponent: HeldOutSet,
    questions: Sequence[str],
    embedder: Embedder,
    encoder_sha256: str | None,
    say: Say,
) -> Half:
    if encoder_sha256 is None:
        return _embedded(opponent, questions, embedder, say)
    path = data_dir() / "embeddings" / encoder_sha256[:16] / f"{opponent.digest[:16]}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept: Half = np.load(path, allow_pickle=False)
        if kept.dtype == np.float16 and kept.ndim == 2 and len(kept) == len(questions):
            return kept
    made = _embedded(opponent, questions, embedder, say)
    with contextlib.suppress(OSError):  # a read-only data directory only costs time
        _keep(path, made)
    return made


def _embedded(opponent: HeldOutSet, questions: Sequence[str], embedder: Embedder, say: Say) -> Half:
    """The questions' vectors, (questions, dim); a line at the start, and while it takes long."""
    what = f"{opponent.benchmark}'s {opponent.split} questions"
    say(f"embedding {len(questions)} of {what}, to compare in meaning")
    said = time.monotonic()
    pieces: list[Half] = []
    for begin in range(0, len(questions), _PIECE):
        pieces.append(rounded(embedder.encode(questions[begin : begin + _PIECE])))
        if time.monotonic() - said >= _SAY_SECONDS and begin + _PIECE < len(questions):
            said = time.monotonic()
            say(f"embedded {begin + _PIECE} of {len(questions)} of {what}")
    return np.concatenate(pieces) if pieces else np.zeros((0, embedder.dimensions), np.float16)


def _keep(path: Path, vectors: Half) -> None:
    """Write the file whole, whoever else is writing the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
