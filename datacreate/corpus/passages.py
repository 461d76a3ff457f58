"""Cuts documents into passages, keeps them in a file, and assigns one to each request.

The file has one passage per line, as JSON. Its last line has the name and SHA-256 of each file in the order of reading,
the number of passages of each document that has some, and, by reason, of those left out. A run keeps it as
passages.jsonl, so that it resumes without reading the documents again. Of each passage only its place is in memory.
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
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import IO, Any

from rensa import RMinHash
from semantic_text_splitter import MarkdownSplitter, TextSplitter

from datacreate.corpus import DEFAULT_PASSAGE_TOKENS, CorpusOptions, CorpusSpec
from datacreate.corpus.documents import Document, content_sha256, display_path, find_files, read_documents
from datacreate.errors import RunError, RunMismatch, UsageError
from datacreate.files import atomic_replacement, storage_error
from datacreate.filters.near_index import LshIndex, hash_bands, shingles
from datacreate.formats.example import one_line

MIN_SIMILARITY = 0.8  # passages that share this fraction of their words and word pairs are near-duplicates

_MIN_SHARE = 1 / 8
"""A passage that is shorter than this part (one eighth) of the longest possible one, such as a heading alone, is left
out."""

_BANDS, _SIGNATURE_SIZE = 16, 128
"""Bands and MinHash values of a passage: 8 values per band find 95 % of the pairs at `MIN_SIMILARITY`, nearly all above
0.85."""

_PASSAGE_MARGIN = 1.25
"""A run uses this many times the passages that its examples need, since some passages give no valid example."""

_HASH_SEED = 1
_BATCH = 512  # passages that are hashed together
_MAX_NOTES = 10

_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Passage:
    """A part of a document: `text` starts at the character `offset` of the document, from 0."""

    file: str
    row: int | None  # of a table, from 1
    offset: int
    text: str

    @property
    def source(self) -> dict[str, Any]:
        """Where the passage is from, as a line of sources.jsonl."""
        return {
            "file": self.file,
            **({} if self.row is None else {"row": self.row}),
            "offset": self.offset,
            "length": len(self.text),
            "sha256": hashlib.sha256(self.text.encode("utf-8")).hexdigest(),
        }


class Passages:
    """The passages in a file, numbered from 0."""

    def __init__(self, file: IO[bytes], seed: int, notes: Sequence[str] = ()) -> None:
        """`file` is open for reading; `seed` decides the order of assignment; `notes` are lines for the user.

        Raises ValueError, KeyError or TypeError if the file is damaged.
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
        origin = json.loads(line)
        self._files: list[tuple[str, str]] = origin["files"]
        self._sizes: list[int] = origin["passages"]
        self._left_out: dict[str, int] = origin["left_out"]

    def __len__(self) -> int:
        return len(self._starts) - 2

    def __getitem__(self, number: int) -> Passage:
        document = json.loads(_line(self._file, self._starts, number))
        return Passage(document["file"], document.get("row"), document["offset"], document["text"])

    def of_request(self, request_number: int) -> Passage:
        """The passage of the request with this number. Documents take turns; no passage repeats before all are used."""
        return self[self._order[request_number % len(self)]]

    @cached_property
    def _order(self) -> array[int]:
        """The passages in the order in which they are assigned."""
        rng = random.Random(f"{self._seed}:passages")  # "passages" is part of the seed: do not rename it
        numbers = iter(range(len(self)))
        queues = [list(islice(numbers, size)) for size in self._sizes]
        rng.shuffle(queues)
        for queue in queues:
            rng.shuffle(queue)
        order = array("q")
        while queues:
            order.extend(queue.pop() for queue in queues)
            queues = [queue for queue in queues if queue]
        return order

    def examples_per_request(self, count: int) -> int:
        """How many examples to ask for about each passage, so that `count` are accepted if some passages give none."""
        return math.ceil(_PASSAGE_MARGIN * count / len(self))

    @property
    def longest(self) -> str:
        """The text of the passage with the most bytes."""
        sizes = [end - begin for begin, end in pairwise(self._starts)][:-1]  # the last line is not a passage
        return self[sizes.index(max(sizes))].text

    def spec(self, options: CorpusOptions) -> CorpusSpec:
        """The passages as part of a run's identity; `options` are those of this session."""
        return CorpusSpec(
            sha256=self.sha256,
            passages=len(self),
            documents=len(self._sizes),
            passage_tokens=options.passage_tokens or DEFAULT_PASSAGE_TOKENS,
            field=options.corpus_field,
        )

    @property
    def counts(self) -> dict[str, Any]:
        """The number of passages and of documents, and of the passages left out, by reason."""
        counts = {"passages": len(self), "documents": len(self._sizes)}
        return counts | ({"left_out": self._left_out} if self._left_out else {})

    def __str__(self) -> str:
        left_out = ", ".join(f"{count} {reason}" for reason, count in self._left_out.items())
        passages = f"corpus: {len(self)} passages of {len(self._sizes)} documents"
        return f"{passages}; left out: {left_out}" if left_out else passages

    def check_files(self, files: Sequence[Path], directory: Path) -> None:
        """Raise RunMismatch, naming a file that differs, unless these have the content that was read."""
        stored = {sha256: name for name, sha256 in self._files}
        current = {content_sha256(file): display_path(file) for file in files}
        if list(stored) != list(current):
            changed = [(current | stored)[sha256] for sha256 in stored.keys() ^ current.keys()]
            difference = f"another content of {min(changed)}" if changed else "another order of the documents"
            raise RunMismatch(f"{directory} was made with {difference}; use the same documents, or another --run-dir")

    def save(self, path: Path) -> None:
        """Write the file of a run, unless it was opened from there. Raises StorageError."""
        if not path.is_file() or not os.path.samestat(path.stat(), os.fstat(self._file.fileno())):
            self._file.seek(0)
            with atomic_replacement(path) as part, part.open("xb") as copy:
                shutil.copyfileobj(self._file, copy)


def open_corpus(options: CorpusOptions, seed: int, path: Path, stored: CorpusSpec | None) -> Passages:
    """Open the passages of a run: those that it keeps at `path`, or new ones, cut from the documents of the options.

    `stored` is what an earlier session recorded; None before the first. Raises UsageError if there are no documents,
    or none with a passage, RunMismatch if their content has changed, RunError if the file of the run is damaged.
    """
    files = find_files(options.corpus)
    if stored and path.is_file():
        passages = open_stored_passages(path, seed, stored)
        passages.check_files(files, path.parent)
        return passages
    try:
        file = tempfile.TemporaryFile(prefix="datacreate-")  # noqa: SIM115 (it is open until the run ends)
        return Passages(file, seed, _write_corpus(file, files, options))
    except OSError as error:
        raise storage_error(Path(tempfile.gettempdir()), error) from None


def open_stored_passages(path: Path, seed: int, spec: CorpusSpec) -> Passages:
    """The passages that a run keeps at `path`. Raises RunError if they are missing or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        passages = Passages(path.open("rb"), seed)
        if passages.sha256 == spec.sha256:
            return passages
    raise RunError(
        f"{path}: missing or damaged; restore it from a copy, or remove it: `create` reads the documents again"
    )


def _write_corpus(file: IO[bytes], files: Sequence[Path], options: CorpusOptions) -> list[str]:
    """Write the passages of documents to `file`, then the line about these.

    A passage that is too short, or similar to an earlier one, is left out. Returns lines for the user, about files or
    rows that give no passage. Raises UsageError if there is no passage.
    """
    notes: dict[Path, list[str]] = {path: [] for path in files}  # about what cannot be used of each
    left_out = Counter[str]()
    sizes = _write_passages(file, _cut(files, options, notes, left_out), left_out)
    used = {path for path, _ in sizes}
    without = [path for path in files if path not in used and not notes[path]]
    lines = list(chain.from_iterable(notes.values()))
    lines += [f"{display_path(path)}: left out: no passage, only short or repeated texts" for path in without]
    if not used:
        reason = "; ".join(lines) if len(files) == 1 else f"{len(files)} files"
        paths = " ".join(map(one_line, options.corpus))
        raise UsageError(f"--corpus: no passage in {paths} ({reason}); give other documents")
    hashes = [(display_path(path), content_sha256(path)) for path in files]
    _write_line(file, {"files": hashes, "passages": list(sizes.values()), "left_out": left_out})
    if (more := len(lines) - _MAX_NOTES) > 0:
        lines[_MAX_NOTES:] = [f"… and {more} more notes about documents that were left out"]
    return lines


def _cut(
    files: Sequence[Path], options: CorpusOptions, notes: Mapping[Path, list[str]], left_out: Counter[str]
) -> Iterator[tuple[Path, Passage]]:
    """Cut the documents; yields passages that are long enough, with their files. Adds to `notes` and `left_out`."""
    tokens = options.passage_tokens or DEFAULT_PASSAGE_TOKENS
    for file in files:
        for document in read_documents(file, options.corpus_field, notes[file].append):
            for passage in split(document, tokens):
                if count_tokens(passage.text) < _MIN_SHARE * tokens:
                    left_out["too short"] += 1
                else:
                    yield file, passage


def _write_passages(
    file: IO[bytes], passages: Iterator[tuple[Path, Passage]], left_out: Counter[str]
) -> Counter[tuple[Path, int | None]]:
    """Write each passage that is not similar to an earlier one; returns how many each document has, by file and row.

    Adds to `left_out`. An index in memory proposes earlier passages; their texts are read from the file again.
    """
    index, sizes = LshIndex(_BANDS), Counter[tuple[Path, int | None]]()
    starts = array("q", [0])  # where the line of each passage starts; a passage that is left out has no bytes
    while batch := list(islice(passages, _BATCH)):
        shingled = [shingles(passage.text) for _, passage in batch]
        signatures = RMinHash.digest_matrix_from_token_sets(shingled, _SIGNATURE_SIZE, _HASH_SEED)
        bands = hash_bands(signatures.to_rows(), _BANDS)
        index.add(bands)
        for (path, passage), own, proposed in zip(batch, shingled, index.find(bands), strict=True):
            earlier = (_line(file, starts, number) for number in proposed if number < len(starts) - 1)
            if any(_is_similar(set(own), line) for line in earlier if line):
                left_out["repeated or similar"] += 1
            else:
                _write_line(file, passage.source | {"text": passage.text})
                sizes[path, passage.row] += 1
            starts.append(file.tell())
    return sizes


def _is_similar(own_shingles: set[str], line: bytes) -> bool:
    """Whether the passage in a line of the file shares most words and word pairs with the one of `own_shingles`."""
    others = set(shingles(json.loads(line)["text"]))
    return len(own_shingles & others) >= MIN_SIMILARITY * len(own_shingles | others)


def _write_line(file: IO[bytes], document: Mapping[str, Any]) -> None:
    file.write(f"{_encode(document)}\n".encode())
    file.flush()


def _line(file: IO[bytes], starts: Sequence[int], number: int) -> bytes:
    """A line of the file, which may have grown since it was opened."""
    return os.pread(file.fileno(), starts[number + 1] - starts[number], starts[number])


def split(document: Document, tokens: int) -> Iterator[Passage]:
    """Cut a document into passages of at most `tokens` tokens; yields them in order, without outer spaces.

    Cuts are between headings, paragraphs or sentences where possible.
    """
    for start, text in _splitter(tokens, is_markdown=document.is_markdown).chunk_indices(document.text):
        offset = start + len(text) - len(text.lstrip())
        if stripped := text.strip():
            yield Passage(display_path(document.file), document.row, offset, stripped)


@cache
def _splitter(tokens: int, *, is_markdown: bool) -> MarkdownSplitter | TextSplitter:
    return (MarkdownSplitter if is_markdown else TextSplitter).from_callback(count_tokens, tokens)


def count_tokens(text: str) -> int:
    """About how many tokens a text has: one for 4 bytes of UTF-8.

    Tokenizers reach that in English. Letters of other alphabets need more bytes, and more tokens for a word.
    """
    return -(-len(text.encode("utf-8")) // 4)
