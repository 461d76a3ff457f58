"""Cuts documents into passages, keeps them in a file, and assigns one to each request.

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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count, islice
from pathlib import Path
from typing import IO, Any

from rensa import RMinHash
from semantic_text_splitter import MarkdownSplitter, TextSplitter

from datacreate.corpus import DEFAULT_PASSAGE_TOKENS, CorpusOptions, CorpusRef
from datacreate.corpus.documents import Document, content_sha256, display_path, find_files, read_documents
from datacreate.errors import RunError, RunMismatch, UsageError
from datacreate.files import atomic_replacement, storage_error
from datacreate.filters.near import LshIndex, hash_bands, shingles
from datacreate.formats.example import one_line

SIMILAR = 0.8
"""Passages that share this fraction of their words and word pairs are near-duplicates."""

_MIN_SHARE = 8
"""A passage shorter than one such part of the longest possible one, such as a heading alone, is left out."""

_BANDS, _ROWS_PER_BAND = 16, 8
"""Bands of MinHash values: they find 95 % of the pairs at `SIMILAR`, and nearly all above 0.85."""

_PASSAGE_MARGIN = 1.25
"""So many times the passages that the examples need are used, as some give no valid one."""

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


class Passages:
    """The passages in a file, numbered from 0."""

    def __init__(self, file: IO[bytes], seed: int, notes: Sequence[str] = ()) -> None:
        """`file` is open for reading, `seed` decides the order in which they are assigned, `notes` are for the user.

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
        """The passages in the order in which they are assigned."""
        rng = random.Random(f"{self._seed}:passages")  # "passages" is part of the seed: do not rename it
        numbers = iter(range(len(self)))
        queues = [list(islice(numbers, size)) for size in self._about.passages]
        rng.shuffle(queues)
        for queue in queues:
            rng.shuffle(queue)
        order = array("q")
        while queues:
            order.extend(queue.pop() for queue in queues)
            queues = [queue for queue in queues if queue]
        return order

    def examples_per_request(self, count: int) -> int:
        """As few examples of each passage as `count` examples need."""
        return math.ceil(_PASSAGE_MARGIN * count / len(self))

    @property
    def longest(self) -> str:
        """The text of the longest passage, in bytes."""
        return self[max(range(len(self)), key=lambda row: self._starts[row + 1] - self._starts[row])].text

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
        """Raise RunMismatch, naming a file that differs, unless these have the content that was read."""
        stored = {sha256: name for name, sha256 in self._about.files}
        now = {content_sha256(file): display_path(file) for file in files}
        if list(stored) != list(now):
            different = [(now | stored)[sha256] for sha256 in stored.keys() ^ now.keys()]
            what = f"another content of {min(different)}" if different else "another order of the documents"
            raise RunMismatch(
                f"{directory} was made with {what}; use the same documents, or another --run-dir"
            )

    def save(self, path: Path) -> None:
        """Write the file of a run, unless it was opened from there. Raises StorageError."""
        if not path.is_file() or not os.path.samestat(path.stat(), os.fstat(self._file.fileno())):
            self._file.seek(0)
            with atomic_replacement(path) as part, part.open("xb") as copy:
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
        file = tempfile.TemporaryFile(prefix="datacreate-")  # noqa: SIM115 (it is open until the run ends)
        return Passages(file, seed, _write(file, files, options))
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


def _write(file: IO[bytes], files: Sequence[Path], options: CorpusOptions) -> list[str]:
    """Write the passages that are long enough and not similar to an earlier one, then the last line; returns lines for
    the user. Raises UsageError if there is no passage."""
    notes: dict[Path, str] = {}
    left_out, documents, used = Counter[str](), Counter[int](), set[Path]()
    index = LshIndex(_BANDS)
    starts = array("q", [0])  # of the line of each passage, which is empty for one that is left out

    def shingles_of(row: int) -> set[str]:
        line = os.pread(file.fileno(), starts[row + 1] - starts[row], starts[row])
        return set(shingles(json.loads(line)["text"])) if line else set()

    cut = _cut(files, options, notes, left_out)
    while batch := list(islice(cut, _BATCH)):
        tokens = [shingles(passage.text) for _, _, passage in batch]
        signatures = RMinHash.digest_matrix_from_token_sets(tokens, _BANDS * _ROWS_PER_BAND, 1).to_rows()
        index.add(bands := hash_bands(signatures, _BANDS))
        for (path, document, passage), own, found in zip(batch, tokens, index.find(bands), strict=True):
            earlier = [row for row in found if row < len(starts) - 1]
            if any(_are_similar(set(own), shingles_of(row)) for row in earlier):
                left_out["repeated or similar"] += 1
            else:
                file.write(f"{_encode(passage.source | {'text': passage.text})}\n".encode())
                file.flush()
                documents[document] += 1
                used.add(path)
            starts.append(file.tell())
    for path in files:
        if path not in used:
            notes.setdefault(
                path, f"{display_path(path)}: left out: no passage, only short or repeated texts"
            )
    lines = list(notes.values())
    if not used:
        what = lines[0] if len(lines) == 1 else f"{len(files)} files"
        paths = " ".join(map(one_line, options.corpus))
        raise UsageError(f"--corpus: no passage in {paths} ({what}); give other documents")
    read = [(display_path(path), content_sha256(path)) for path in files]
    about = _About(read, list(documents.values()), left_out)
    file.write(f"{_encode(vars(about))}\n".encode())
    file.flush()
    if (more := len(lines) - _MAX_NOTES) > 0:
        lines[_MAX_NOTES:] = [f"… and {more} more files without a passage"]
    return lines


def _cut(
    files: Sequence[Path], options: CorpusOptions, notes: dict[Path, str], left_out: Counter[str]
) -> Iterator[tuple[Path, int, Passage]]:
    """The passages that are long enough, each with its file and the number of its document."""
    tokens, numbers = options.passage_tokens or DEFAULT_PASSAGE_TOKENS, count()
    for file in files:
        for document in read_documents(file, options.corpus_field, notes.__setitem__):
            number = next(numbers)
            for passage in split(document, tokens):
                if _MIN_SHARE * count_tokens(passage.text) < tokens:
                    left_out["too short"] += 1
                else:
                    yield file, number, passage


def _are_similar(one: set[str], other: set[str]) -> bool:
    return len(one & other) >= SIMILAR * len(one | other)


def split(document: Document, tokens: int) -> Iterator[Passage]:
    """The passages of a document, in order: of at most so many tokens, cut between headings, paragraphs or sentences
    where that is possible, without outer spaces."""
    for start, text in _splitter(tokens, document.is_markdown).chunk_indices(document.text):
        offset = start + len(text) - len(text.lstrip())
        if stripped := text.strip():
            yield Passage(display_path(document.file), document.row, offset, stripped)


@cache
def _splitter(tokens: int, is_markdown: bool) -> MarkdownSplitter | TextSplitter:
    return (MarkdownSplitter if is_markdown else TextSplitter).from_callback(count_tokens, tokens)


def count_tokens(text: str) -> int:
    """About how many tokens a text has: one for 4 bytes of UTF-8.

    Tokenizers reach that in English. Letters of other alphabets need more bytes, and more tokens for a word.
    """
    return -(-len(text.encode("utf-8")) // 4)
