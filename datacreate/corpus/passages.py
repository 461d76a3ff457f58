"""Cuts documents into passages, keeps them in a file, and deals one to each request.

The file has one passage per line, as JSON, and a last line about the documents. A run keeps it as passages.jsonl, so
that it resumes without reading the documents again. Of each passage only its place in the file is in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from rensa import RMinHash
from semantic_text_splitter import MarkdownSplitter, TextSplitter

from datacreate.corpus import DEFAULT_PASSAGE_TOKENS, CorpusOptions, CorpusRef
from datacreate.corpus.documents import (
    Document,
    check_converters,
    content_sha256,
    find_files,
    read_documents,
    shown,
)
from datacreate.errors import RunError, RunMismatch, UsageError
from datacreate.files import replaced, storage_error
from datacreate.filters.near import shingles
from datacreate.formats.example import one_line

SIMILAR = 0.8
"""Passages that share this fraction of their words and word pairs are near-duplicates."""

_MIN_SHARE = 8
"""A passage shorter than one such part of the longest possible one, such as a heading alone, is left out."""

_BANDS, _ROWS_PER_BAND = 16, 8
"""Bands of MinHash values: they find 95 % of the pairs at `SIMILAR`, and nearly all above 0.85."""

_POWERS = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, _ROWS_PER_BAND + 1, dtype=np.uint64)

_PASSAGE_MARGIN = 1.25
"""So many times the passages that the examples need are used, as some give no valid one."""

_MAX_COMPARED = 4
"""A passage is compared with so many earlier ones that have a band in common, the first ones: the cost stays constant
where thousands are similar."""

_BATCH = 512  # passages that are hashed together

_MAX_NOTES = 10

_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Passage:
    """A part of a document: its text from character `offset` on."""

    file: str
    row: int | None  # of a table, from 1
    offset: int
    text: str

    @property
    def source(self) -> dict[str, Any]:
        """Where it is from, as a line of sources.jsonl has it."""
        return {
            "file": self.file,
            **({} if self.row is None else {"row": self.row}),
            "offset": self.offset,
            "length": len(self.text),
            "sha256": hashlib.sha256(self.text.encode("utf-8")).hexdigest(),
        }


@dataclass(frozen=True)
class _About:
    """The last line of the file."""

    files: Sequence[tuple[str, str]]  # that were read, in order: the name and the SHA-256 of each
    passages: Sequence[int]  # of each document that has one, in order
    left_out: Mapping[str, int]  # passages, by the reason
    longest: int  # number of the longest passage


class Passages:
    """The passages in a file, numbered from 0."""

    def __init__(self, file: IO[bytes], seed: int, notes: Sequence[str] = ()) -> None:
        """`file` is open for reading, `seed` decides the order in which they are dealt, `notes` are for the user.

        Raises ValueError or TypeError if the file is damaged.
        """
        self._file = file
        self._seed = seed
        self.notes = tuple(notes)
        self._starts = array("q", [0])
        hashed, line = hashlib.sha256(), b""
        file.seek(0)
        for line in file:
            hashed.update(line)
            self._starts.append(self._starts[-1] + len(line))
        self.sha256 = hashed.hexdigest()
        self._about = _About(**json.loads(line))

    def __len__(self) -> int:
        return len(self._starts) - 2

    def __getitem__(self, number: int) -> Passage:
        begin, end = self._starts[number], self._starts[number + 1]
        found = json.loads(os.pread(self._file.fileno(), end - begin, begin))
        return Passage(found["file"], found.get("row"), found["offset"], found["text"])

    def of_request(self, request: int) -> Passage:
        """The passage of a request: from all documents in turn, and each passage once before any is used again."""
        return self[self._order[request % len(self)]]

    @cached_property
    def _order(self) -> array[int]:
        """The passages in the order in which they are dealt."""
        rng = random.Random(f"{self._seed}:passages")  # the word is part of the seed: do not change it
        numbers = iter(range(len(self)))
        queues = [list(islice(numbers, size)) for size in self._about.passages]
        rng.shuffle(queues)
        for queue in queues:
            rng.shuffle(queue)
        dealt = array("q")
        while queues:
            dealt.extend(queue.pop() for queue in queues)
            queues = [queue for queue in queues if queue]
        return dealt

    def examples_per_request(self, count: int) -> int:
        """As few examples of each passage as `count` examples need."""
        return math.ceil(_PASSAGE_MARGIN * count / len(self))

    @property
    def longest(self) -> str:
        """The text of the longest passage."""
        return self[self._about.longest].text

    def ref(self, options: CorpusOptions) -> CorpusRef:
        """The passages as part of a run's identity, with the options that the user gave now."""
        return CorpusRef(
            sha256=self.sha256,
            passages=len(self),
            documents=len(self._about.passages),
            passage_tokens=options.passage_tokens or DEFAULT_PASSAGE_TOKENS,
            field=options.corpus_field,
        )

    @property
    def counts(self) -> dict[str, Any]:
        """How many passages and documents there are, and how many passages were left out, by the reason."""
        found = {"passages": len(self), "documents": len(self._about.passages)}
        return found | ({"left_out": self._about.left_out} if self._about.left_out else {})

    def __str__(self) -> str:
        left_out = ", ".join(f"{number} {why}" for why, number in self._about.left_out.items())
        found = f"corpus: {len(self)} passages of {len(self._about.passages)} documents"
        return f"{found}; left out: {left_out}" if left_out else found

    def check_files(self, files: Sequence[Path], directory: Path) -> None:
        """Raise RunMismatch, naming the first file that differs, unless these have the content that was read."""
        stored = self._about.files
        for (before, sha256), now in zip(stored, files, strict=False):
            if sha256 != content_sha256(now):
                moved = "" if before == shown(now) else f" (now {shown(now)})"
                raise RunMismatch(
                    f"{directory} was made with another content of {before}{moved}; use the same documents, or another "
                    "--run-dir"
                )
        if len(stored) != len(files):
            first = stored[len(files)][0] if len(stored) > len(files) else shown(files[len(stored)])
            raise RunMismatch(
                f"{directory} was made with {len(stored)} files of --corpus, not with {len(files)} (see {first}); use "
                "the same documents, or another --run-dir"
            )

    def save(self, path: Path) -> None:
        """Write the file of a run, unless it was opened from there. Raises StorageError."""
        if not path.is_file() or not os.path.samestat(path.stat(), os.fstat(self._file.fileno())):
            self._file.seek(0)
            with replaced(path) as part, part.open("xb") as copy:
                shutil.copyfileobj(self._file, copy)


def open_corpus(options: CorpusOptions, seed: int, path: Path, stored: CorpusRef | None) -> Passages:
    """The passages of these documents: from `path`, where a run keeps them, or from the documents.

    `stored` is what an earlier session recorded; None before the first. Raises UsageError if there are no documents,
    or none with a passage, RunMismatch if their content has changed, RunError if the file of the run is damaged.
    """
    files = find_files(options.corpus)
    if stored and path.is_file():
        passages = stored_passages(path, seed, stored)
        passages.check_files(files, path.parent)
        return passages
    try:
        file: IO[bytes] = tempfile.TemporaryFile(prefix="datacreate-")  # noqa: SIM115 (it is open until the run ends)
        file, notes = _Writer(file).write(files, options)
        return Passages(file, seed, notes)
    except OSError as error:
        raise storage_error(Path(tempfile.gettempdir()), error) from None


def stored_passages(path: Path, seed: int, ref: CorpusRef) -> Passages:
    """The passages that a run keeps at `path`. Raises RunError if they are missing or damaged."""
    with suppress(OSError, ValueError, TypeError):
        passages = Passages(path.open("rb"), seed)
        if passages.sha256 == ref.sha256:
            return passages
    raise RunError(
        f"{path}: missing or damaged; restore it from a copy, or remove it: `create` reads the documents again"
    )


class _Writer:
    """Writes the file: passages that are long enough, and that no earlier one is similar to."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._starts = array("q", [0])
        self._documents, self._files, self._lengths = array("q"), array("q"), array("q")  # of each passage
        self._bands = array("I")
        self._digests: set[bytes] = set()
        self._left_out = Counter[str]()
        self._notes: dict[Path, str] = {}

    def write(self, files: Sequence[Path], options: CorpusOptions) -> tuple[IO[bytes], list[str]]:
        """The file with all passages and the last line, and lines for the user. UsageError if there is no passage."""
        check_converters(files)
        passages = self._passages(files, options)
        while batch := list(islice(passages, _BATCH)):
            self._write_batch(batch)
        kept = self._without_similar()
        used = {self._files[row] for row in kept}
        for number, file in enumerate(files):
            if number not in used:
                nothing = f"{shown(file)}: left out: no passage, only short or repeated texts"
                self._notes.setdefault(file, nothing)
        notes = list(self._notes.values())
        if not kept:
            what = notes[0] if len(notes) == 1 else f"{len(files)} files"
            paths = " ".join(map(one_line, options.corpus))
            raise UsageError(f"--corpus: no passage in {paths} ({what}); give other documents")
        about = _About(
            [(shown(file), content_sha256(file)) for file in files],
            list(Counter(self._documents[row] for row in kept).values()),
            dict(self._left_out),
            max(range(len(kept)), key=lambda number: self._lengths[kept[number]]),
        )
        written = self._file if len(kept) == len(self._lengths) else self._copied(kept)
        written.write(f"{_encode(vars(about))}\n".encode())
        written.flush()
        more = [f"… and {len(notes) - _MAX_NOTES} more files without a passage"]
        return written, notes if len(notes) <= _MAX_NOTES else notes[:_MAX_NOTES] + more

    def _passages(self, files: Sequence[Path], options: CorpusOptions) -> Iterator[tuple[int, int, Passage]]:
        """The passages that are long enough, each with the number of its file and of its document."""
        tokens, document = options.passage_tokens or DEFAULT_PASSAGE_TOKENS, 0
        for number, file in enumerate(files):
            for found in read_documents(file, options.corpus_field, self._notes.__setitem__):
                document += 1
                for passage in split(found, tokens):
                    if _MIN_SHARE * count_tokens(passage.text) < tokens:
                        self._left_out["too short"] += 1
                    else:
                        yield number, document, passage

    def _write_batch(self, batch: Sequence[tuple[int, int, Passage]]) -> None:
        new: list[Passage] = []
        for file, document, passage in batch:
            digest = hashlib.sha256(passage.text.encode("utf-8")).digest()[:8]
            if digest in self._digests:
                self._left_out["repeated"] += 1
                continue
            self._digests.add(digest)
            new.append(passage)
            line = f"{_encode(passage.source | {'text': passage.text})}\n".encode()
            self._file.write(line)
            self._starts.append(self._starts[-1] + len(line))
            self._files.append(file)
            self._documents.append(document)
            self._lengths.append(len(passage.text))
        size = _BANDS * _ROWS_PER_BAND
        tokens = [shingles(passage.text) for passage in new]
        digests = RMinHash.digest_matrix_from_token_sets(tokens, size, 1).to_rows()
        signatures = np.fromiter(chain.from_iterable(digests), np.uint64, len(new) * size)
        bands = (signatures.reshape(len(new), _BANDS, -1) @ _POWERS) >> np.uint64(32)
        self._bands.frombytes(bands.astype(np.uint32).tobytes())

    def _without_similar(self) -> list[int]:
        """The numbers of the passages that no earlier one is similar to."""
        self._file.flush()
        bands = np.frombuffer(self._bands, np.uint32).reshape(-1, _BANDS)
        candidates: defaultdict[int, set[int]] = defaultdict(set)
        for band in bands.T:
            order = np.argsort(band, kind="stable")
            is_first = np.r_[True, band[order][1:] != band[order][:-1]][: len(order)]
            first = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
            for at in np.flatnonzero(~is_first).tolist():
                candidates[int(order[at])].update(
                    order[first[at] : min(at, first[at] + _MAX_COMPARED)].tolist()
                )
        similar: set[int] = set()
        for row in sorted(candidates):
            own = self._shingles(row)
            if any(_are_similar(own, self._shingles(other)) for other in candidates[row] - similar):
                similar.add(row)
        if similar:
            self._left_out["similar to another"] = len(similar)
        return [row for row in range(len(self._lengths)) if row not in similar]

    def _line(self, row: int) -> bytes:
        begin, end = self._starts[row], self._starts[row + 1]
        return os.pread(self._file.fileno(), end - begin, begin)

    def _shingles(self, row: int) -> set[str]:
        return set(shingles(json.loads(self._line(row))["text"]))

    def _copied(self, rows: Sequence[int]) -> IO[bytes]:
        """A temporary file with these lines."""
        file = tempfile.TemporaryFile(prefix="datacreate-")  # noqa: SIM115 (it is open until the run ends)
        file.writelines(map(self._line, rows))
        return file


def _are_similar(one: set[str], other: set[str]) -> bool:
    return len(one & other) >= SIMILAR * len(one | other)


def split(document: Document, tokens: int) -> Iterator[Passage]:
    """The passages of a document, in order: of at most so many tokens, cut between headings, paragraphs or sentences
    where that is possible, without outer spaces."""
    for start, text in _splitter(tokens, document.is_markdown).chunk_indices(document.text):
        offset = start + len(text) - len(text.lstrip())
        if stripped := text.strip():
            yield Passage(shown(document.file), document.row, offset, stripped)


@cache
def _splitter(tokens: int, is_markdown: bool) -> MarkdownSplitter | TextSplitter:
    return (MarkdownSplitter if is_markdown else TextSplitter).from_callback(count_tokens, tokens)


def count_tokens(text: str) -> int:
    """About how many tokens a text has: one for 4 bytes of UTF-8.

    Tokenizers reach that in English. Letters of other alphabets need more bytes, and more tokens for a word.
    """
    return -(-len(text.encode("utf-8")) // 4)
