"""Held-out rows: the rows of test sets, searchable by their word n-grams, and their embeddings."""

from __future__ import annotations

import contextlib
import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from datacreate.errors import RunLocked, StorageError
from datacreate.filters.base import HeldOutRow, HeldOutSet
from datacreate.filters.near import encodable_words
from datacreate.locking import replaced_by_one
from datacreate.messages import Notify
from datacreate.paths import data_dir
from datacreate.selection.accepted_vectors import Float16Rows, to_float16
from datacreate.selection.embeddings import Embedder

Hashes = NDArray[np.uint64]

MIN_WORDS_INSIDE = 5
"""A held-out text shorter than the n-gram is searched inside longer texts if it has this many words.

Shorter ones, such as "What is it?", occur in many unrelated texts: they must be the whole text.
"""

MAX_ROWS_OF_NGRAM = 10
"""An n-gram of more held-out texts is a phrase of the test set, such as an instruction, and shows no repeat."""

PASSAGE_SHARE = 0.2
PASSAGE_NGRAMS = 8
"""A passage repeats a held-out passage if it shares this fraction of its n-grams and this many n-grams with it
(all of them, if it has fewer). A lower share also occurs between unrelated passages with common formulas."""

_MAX_SHOWN = 60  # characters of a row in a message

_CHUNK = 2048  # texts embedded between two messages


class HeldOutRows:
    """The rows of some held-out sets, numbered across the sets from 0."""

    def __init__(self, held_out: Sequence[HeldOutSet], n: int = 8) -> None:
        """Read and index all rows by their n-grams. Raises what the sets raise."""
        self._sets, self._n = held_out, n
        read = [list(each.read()) for each in held_out]
        self._begins = [0, *accumulate(map(len, read))]
        self.rows: list[HeldOutRow] = [row for rows in read for row in rows]
        self._short_lengths: set[int] = set()  # in words, of questions shorter than n
        questions, passages = [], []
        for row in self.rows:
            question = encodable_words(row.question)
            # A short question says little if each has a passage of its own.
            if is_short := 0 < len(question) < n and not row.passage:
                self._short_lengths.add(len(question))
            questions.append(hash_ngrams(question, len(question) if is_short else n))
            passages.append(hash_ngrams(encodable_words(row.passage), n) if row.passage else questions[-1])
        self._questions = NgramIndex(questions, MAX_ROWS_OF_NGRAM)
        self._passages = NgramIndex(passages)

    def texts(self) -> Iterator[tuple[HeldOutSet, list[str]]]:
        """Each set that has rows, with the inputs of each row as one text."""
        for each, (begin, end) in zip(self._sets, pairwise(self._begins), strict=True):
            if begin < end:
                yield each, ["\n".join(row.inputs) for row in self.rows[begin:end]]

    def name(self, row: int) -> str:
        """A row as a person finds it: test set, row of the file, and how it starts."""
        place = bisect_right(self._begins, row) - 1
        start = " ".join("\n".join(self.rows[row].inputs).split())
        start = start if len(start) <= _MAX_SHOWN else start[:_MAX_SHOWN] + "…"
        return f"{self._sets[place].ref.title} row {row - self._begins[place] + 1} ({start})"

    def repeated_question(self, question: str) -> int | None:
        """The row that shares most n-grams with `question`, or all words if the row is shorter than an n-gram."""
        found = encodable_words(question)
        lengths = {k for k in self._short_lengths if k >= MIN_WORDS_INSIDE or k == len(found)}
        grams = [hash_ngrams(found, k) for k in sorted({self._n, *lengths})]
        most = self._questions.most_common(np.concatenate(grams))
        return None if most is None else most[0]

    def repeated_passage(self, passage: str) -> tuple[int, float] | None:
        """The row whose passage contains a large part of `passage`, and the shared part of its n-grams."""
        grams = hash_ngrams(encodable_words(passage), self._n)
        found = self._passages.most_common(grams)
        if found is None:
            return None
        row, count = found
        enough = count >= PASSAGE_SHARE * len(grams) and count >= min(PASSAGE_NGRAMS, len(grams))
        return (row, count / len(grams)) if enough else None


def hash_ngrams(words: Sequence[str], n: int) -> Hashes:
    """The 64-bit hash of each n consecutive words, in order; empty if there are fewer words."""
    grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    return np.array(RMinHash.hash_token_sets([grams])[0], dtype=np.uint64)


class NgramIndex:
    """From an n-gram to the rows that contain it; built once."""

    def __init__(self, grams: Sequence[Hashes], max_rows: int | None = None) -> None:
        """`grams` holds the n-grams of each row; those in more than `max_rows` different rows are left out."""
        hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *grams])
        rows = np.repeat(np.arange(len(grams), dtype=np.int32), list(map(len, grams)))
        order = np.lexsort((rows, hashes))
        hashes, rows = hashes[order], rows[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
        self._hashes, self._rows = hashes[new], rows[new]
        if max_rows is not None:
            first: dict[bytes, int] = {}  # of equal rows
            is_first = [first.setdefault(row.tobytes(), i) == i for i, row in enumerate(grams)]
            counted = self._hashes[np.array(is_first, dtype=bool)[self._rows]]
            found, counts = np.unique(counted, return_counts=True)
            kept = ~np.isin(self._hashes, found[counts > max_rows])
            self._hashes, self._rows = self._hashes[kept], self._rows[kept]

    def most_common(self, grams: Hashes) -> tuple[int, int] | None:
        """The row that contains most of `grams` (the first of equals), and how many; None if no row does."""
        left = np.searchsorted(self._hashes, grams)
        right = np.searchsorted(self._hashes, grams, side="right")
        pieces = [self._rows[a:b] for a, b in zip(left, right, strict=True) if a < b]
        if not pieces:
            return None
        rows, counts = np.unique(np.concatenate(pieces), return_counts=True)
        best = int(counts.argmax())
        return int(rows[best]), int(counts[best])


def embed_texts(
    title: str, texts: Sequence[str], embedder: Embedder, model_sha256: str | None, notify: Notify
) -> Float16Rows:
    """The embeddings of the texts of a test set, (texts, dim), computed once per embedding model.

    $DATACREATE_HOME/embeddings/MODEL/TEXTS.npy caches them; MODEL and TEXTS are the first 16 digits of the SHA-256
    of the model and of the texts. Without the model's hash nothing is cached.
    """
    if model_sha256 is None:
        return _embed(title, texts, embedder, notify)
    digest = hashlib.sha256(json.dumps(texts).encode("ascii")).hexdigest()
    path = data_dir() / "embeddings" / model_sha256[:16] / f"{digest[:16]}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        cached: Float16Rows = np.load(path, allow_pickle=False)
        if cached.dtype == np.float16 and cached.ndim == 2 and len(cached) == len(texts):
            return cached
    vectors = _embed(title, texts, embedder, notify)
    # Without the cache the next run only takes longer.
    with (
        contextlib.suppress(OSError, StorageError, RunLocked),
        replaced_by_one(path) as part,
        part.open("xb") as file,
    ):
        np.save(file, vectors, allow_pickle=False)
    return vectors


def _embed(title: str, texts: Sequence[str], embedder: Embedder, notify: Notify) -> Float16Rows:
    pieces: list[Float16Rows] = []
    for begin in range(0, len(texts), _CHUNK):
        notify(f"embedding {len(texts)} rows of {title}" + (f", {begin} done" if begin else ""))
        pieces.append(to_float16(embedder.encode(texts[begin : begin + _CHUNK])))
    return np.concatenate(pieces)
