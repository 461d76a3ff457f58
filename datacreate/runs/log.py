"""The log of a run: a line per session, commit, decision of a reviewer, and random sample.

train.jsonl and the other results are written from it when a session ends. The line of a commit, without four of its
examples:

    {"request": 2, "parent": "841eb48bc743c17d", "depth": 1,
    "accepted": [..., {"text": "Thank you.", "label": "praise"}], "next_parents": [3, 4, 1, 0, 2],
    "time": 1796077458.689, "rejects": [], "tokens": [72, 62],"next":[4],"crc":"27ebedc5"}

`next_parents` are the indices of the children that the strategy chose, in `accepted`, or in `waiting` if examples wait
for the label-noise check. `next` has the numbers of the
parents of the requests that are made after the line, so that a resumed run makes the same requests.

A line is written at every commit, and synced to the disk at least once per second. An incomplete last line (of a
process that was killed while writing) is removed when the log is opened again. Every line ends with a checksum,
`"crc"`: the CRC-32 of all lines so far, which starts from the run's id. It detects changed, missing and moved lines,
and the log of another run.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from datacreate.errors import LogDamaged
from datacreate.files import open_regular, storage_error, sync_path
from datacreate.formats.example import Json
from datacreate.formats.reject import Reject, RejectReason
from datacreate.locking import FolderLock
from datacreate.runs.decisions import Decision, Sample
from datacreate.verification import Scored

_SYNC_SECONDS = 1.0  # between two writes to the disk
_CHECKSUM = b',"crc":"%08x"}\n'  # the end of a line
_CHECKSUM_BYTES = len(_CHECKSUM % 0)

_OPTIONAL = ("scoring_tokens", "waiting", "released", "attributes")
"""Fields of `Commit` that a line has under their own names, unless they are empty."""

example_line = json.JSONEncoder(ensure_ascii=False).encode
"""One line of train.jsonl or of the log."""


@dataclass(frozen=True)
class Commit:
    """The result of one request. `RunVerification` says when it has examples that wait, and a second commit."""

    request_number: int
    parent: str  # id of the parent example
    parent_depth: int  # 0 for a formatting example
    time: float  # seconds since the epoch, to the millisecond
    accepted: tuple[dict[str, Json], ...] = ()
    chosen_children: tuple[int, ...] = ()  # the children that may become parents, in order, as indices into `passed`
    rejects: tuple[Reject, ...] = ()
    prompt_tokens: int = 0
    generated_tokens: int = 0
    generator: int = 0  # index of the model that wrote the examples
    scored: tuple[Scored, ...] = ()  # results of the verifier, in order; `accepted` has the same order
    scoring_tokens: int = 0
    waiting: tuple[dict[str, Json], ...] = ()  # examples that wait for the label-noise check, with one `scored` each
    released: bool = False  # whether this is the second commit of its request, about the examples that waited
    attributes: Mapping[str, str] = field(default_factory=dict)  # dimension -> value, the same for all its examples
    thoughts: str = ""  # the text that the model wrote while thinking
    thinking_tokens: int = 0  # included in `generated_tokens`

    @property
    def passed(self) -> tuple[dict[str, Json], ...]:
        """The examples that this commit accepts or lets wait; those of a released commit passed earlier."""
        return () if self.released else self.waiting or self.accepted

    @property
    def changes(self) -> list[tuple[dict[str, Json], int]]:
        """The rows that enter the training set, each with 1; as in `Decision`."""
        return [(values, 1) for values in self.accepted]

    @property
    def family(self) -> str | int:
        """A value that is equal for rows that have much in common: the rows of one parent.

        The children of a formatting example are too many to have much in common: there it is the rows of one request.
        """
        return self.parent if self.parent_depth else self.request_number

    @cached_property
    def accepted_lines(self) -> tuple[str, ...]:
        return tuple(map(example_line, self.accepted))

    @property
    def scored_rows(self) -> Iterator[tuple[dict[str, Json], Scored]]:
        """The accepted examples, each with the verifier's result, which is empty if nothing was scored."""
        not_scored = Scored(None, None, accepted=True, probabilities=())
        results = [scored for scored in self.scored if scored.accepted] or [not_scored] * len(self.accepted)
        return zip(self.accepted, results, strict=True)

    def reviewed(self, numbers: Iterator[int], changed: Mapping[int, dict[str, Json] | None]) -> Commit:
        """The commit with only the accepted examples that are in the training set after the decisions of reviewers.

        `numbers` gives the numbers of its rows, `changed` is the result of `read_changes`. `scored` then has only the
        accepted examples, and no probabilities of edited ones.
        """
        rows = dict(zip(islice(numbers, len(self.accepted)), self.accepted, strict=True))
        if changed.keys().isdisjoint(rows):
            return self
        reviewed = [changed.get(row, values) for row, values in rows.items()]
        scored = tuple(
            replace(result, probabilities=result.probabilities if row == values else ())
            for row, (values, result) in zip(reviewed, self.scored_rows, strict=True)
            if row is not None
        )
        return replace(self, accepted=tuple(filter(None, reviewed)), scored=scored)

    def line(self) -> str:
        """A line of the log, without checksum and line break; empty optional fields are left out."""
        optional = {name: getattr(self, name) for name in _OPTIONAL} | {
            "model": self.generator,
            "scored": list(map(_scored_entry, self.scored)),
            "thinking": [self.thinking_tokens, self.thoughts] if self.thoughts else [],
        }
        record = {
            "request": self.request_number,
            "parent": self.parent,
            "depth": self.parent_depth,
            "accepted": self.accepted,
            "next_parents": self.chosen_children,
            "time": self.time,
            "rejects": [[each.reason, each.text, *filter(None, [each.detail])] for each in self.rejects],
            "tokens": [self.prompt_tokens, self.generated_tokens],
        }
        return example_line(record | {name: value for name, value in optional.items() if value})

    @classmethod
    def parse(cls, record: dict[str, Any]) -> Commit:
        """The commit of a parsed line. Raises KeyError, ValueError or TypeError if the line has none."""
        optional = {name: record[name] for name in _OPTIONAL if name in record}
        lists = {name: tuple(value) for name, value in optional.items() if isinstance(value, list)}
        thinking_tokens, thoughts = record.get("thinking", (0, ""))
        return cls(
            **optional | lists,
            request_number=record["request"],
            parent=record["parent"],
            parent_depth=record["depth"],
            time=record["time"],
            accepted=tuple(record["accepted"]),
            chosen_children=tuple(record["next_parents"]),
            rejects=tuple(Reject(RejectReason(reason), *texts) for reason, *texts in record["rejects"]),
            prompt_tokens=record["tokens"][0],
            generated_tokens=record["tokens"][1],
            generator=record.get("model", 0),
            scored=tuple(map(_parse_scored, record.get("scored", ()))),
            thoughts=thoughts,
            thinking_tokens=thinking_tokens,
        )


def _scored_entry(scored: Scored) -> list[float]:
    """A verifier's result in a line: assigned and final label (-1 for none), 1 if accepted, probabilities."""
    labels = [-1 if label is None else label for label in (scored.assigned, scored.final)]
    return [*labels, int(scored.accepted), *scored.probabilities]


def _parse_scored(entry: Sequence[Any]) -> Scored:
    assigned, final, accepted, *probabilities = entry
    if max(assigned, final) >= len(probabilities) or not all(0 <= probability <= 1 for probability in probabilities):
        raise ValueError("not the probabilities of the labels")
    return Scored(
        assigned=assigned if assigned >= 0 else None,
        final=final if final >= 0 else None,
        accepted=bool(accepted),
        probabilities=tuple(probabilities),
    )


@dataclass(frozen=True)
class SessionStart:
    """The start of a process that works on the run."""

    started: float  # seconds since the epoch, to the millisecond
    environment: dict[str, str]  # host, package versions

    def line(self) -> str:
        return example_line({"session": self.environment, "started": self.started})


LogRecord = SessionStart | Commit | Decision | Sample


def first_checksum(run_id: str) -> int:
    """The checksum before the first line."""
    return zlib.crc32(run_id.encode("utf-8"))


@dataclass(frozen=True)
class LogLine:
    """A line of the log."""

    number: int  # from 1
    record: LogRecord
    parents: tuple[int, ...]  # of the requests that are made after it, as `Parent.number`
    checksum: int  # of all lines up to this one


def read_log(path: Path, run_id: str, num_labels: int = 0) -> Iterator[LogLine]:
    """The complete lines of the log, in order; none without a log.

    `num_labels` is the number of fixed labels, of which a verified example has a probability each. Raises LogDamaged
    if the log is not a regular file, and, naming the line, at the first one that the run of that id did not write.
    """
    checksum = first_checksum(run_id)
    try:
        file = os.fdopen(open_regular(path, os.O_RDONLY), "rb")
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ELOOP, errno.ENXIO):  # those of `open_regular`, or of a socket
            raise
        raise LogDamaged(f"{path}: {error.strerror}; restore it from a copy, or use another --run-dir") from None
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            checksum = zlib.crc32(line[:-_CHECKSUM_BYTES], checksum)
            if line[-_CHECKSUM_BYTES:] != _CHECKSUM % checksum:
                raise LogDamaged(
                    f"{path}, line {number}: changed, missing or moved; restore the file from a copy, cut it "
                    "off before that line, or use another --run-dir"
                )
            yield _parse(line, path, number, checksum, num_labels)


def _parse(line: bytes, path: Path, number: int, checksum: int, num_labels: int = 0) -> LogLine:
    try:
        document = json.loads(line)
        parents, _ = tuple(document.pop("next")), document.pop("crc")
        record: LogRecord
        if "session" in document:
            record = SessionStart(document["started"], document["session"])
        elif document.pop("decision", None):
            record = Decision.parse(document)
        elif document.pop("sample", None):
            record = Sample(**document)
        else:
            record = Commit.parse(document)
            if num_labels and any(len(each.probabilities) != num_labels for each in record.scored):
                raise ValueError("not a probability for each label")
        return LogLine(number, record, parents, checksum)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise LogDamaged(
            f"{path}, line {number}: unknown to this version of datacreate; resume with the version that wrote "
            "it, or start again in another --run-dir"
        ) from None


def read_changes(path: Path, limit: int | None = None) -> dict[int, dict[str, Json] | None]:
    """The number of each row that decisions changed -> the row after the last change; None if it is rejected.

    With a `limit` only so many decisions are read, the earliest ones. No checksum is compared: `read_log` does that.
    Raises LogDamaged.
    """
    changed: dict[int, dict[str, Json] | None] = {}
    for number, line in islice(decision_lines(path), limit):
        decision = _parse(line, path, number, 0).record
        assert isinstance(decision, Decision), "the line starts like one"
        if decision.changes:
            changed[decision.row] = decision.added
    return changed


def decision_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The complete lines with decisions, and their numbers; the others are skipped without parsing them."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.startswith(b'{"decision"') and line.endswith(b"\n"):
                yield number, line


class TrainFile:
    """Finds lines of a train.jsonl that are not rows of the log, or not in their order; a missing one has no rows."""

    def __init__(self, path: Path) -> None:
        self.rows, self._last_line = 0, 0
        self._lines = dict[int, int]()  # those that are not taken: hash of the text -> number of the first such line
        self._moved_or_repeated = list[int]()
        if path.is_file():
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                for number, line in enumerate(file, 1):
                    if text := line.strip():
                        self.rows += 1
                        if self._lines.setdefault(hash(text), number) != number:
                            self._moved_or_repeated.append(number)

    def take(self, row: str) -> int | None:
        """Take a row of the log; returns the number of its line."""
        return self._lines.pop(hash(row), None)

    def take_in_order(self, commit: Commit) -> None:
        """Take the rows of the next commit, which are in later lines than those of earlier ones."""
        for row in commit.accepted_lines if self._lines else ():
            number = self.take(row) or self._last_line
            if number < self._last_line:
                self._moved_or_repeated.append(number)
            self._last_line = number

    def wrong_line(self, *, may_repeat: bool) -> int | None:
        """The first wrong line. Where rows `may_repeat` others, their order is not known."""
        return min([*self._lines.values(), *([] if may_repeat else self._moved_or_repeated)], default=None)


class LogWriter:
    """log.jsonl, open for writing; `checksum` is that of its last line, or `first_checksum`.

    Opening it removes an incomplete last line, and refuses a link. Opening and writing raise LockLost, StorageError.
    """

    def __init__(self, path: Path, checksum: int, lock: FolderLock) -> None:
        lock.check()
        self._path, self._checksum, self._lock = path, checksum, lock
        self._synced = time.monotonic()
        try:
            self._file = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self._size = _remove_incomplete_line(self._file)
            self._status = os.fstat(self._file)
            sync_path(path.parent)  # so that a power failure does not remove the file
        except OSError as error:
            raise storage_error(path, error) from None

    @property
    def is_unchanged(self) -> bool:
        """Whether the file at the path is still this one, and nobody else changed its size."""
        try:
            status = self._path.lstat()
        except OSError:
            return False
        return os.path.samestat(status, self._status) and status.st_size == self._size

    def write(self, records: Sequence[LogRecord], parents: Sequence[int] = ()) -> None:
        """Write records at once; `parents` are those of the last line (see LogLine).

        If the disk is full, none of their lines stays.
        """
        self._lock.check()
        lines, checksum = b"", self._checksum
        for record in records:
            following = list(parents) if record is records[-1] else []
            body = f'{record.line()[:-1]},"next":{following}'.encode()
            checksum = zlib.crc32(body, checksum)
            lines += body + _CHECKSUM % checksum
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise storage_error(self._path, error) from None
        self._size += len(lines)
        self._checksum = checksum

    def sync(self, *, now: bool = False) -> None:
        """Sync to the disk, unless that was done within the last second."""
        if now or time.monotonic() - self._synced >= _SYNC_SECONDS:
            try:
                os.fsync(self._file)
            except OSError as error:
                raise storage_error(self._path, error) from None
            self._synced = time.monotonic()

    def close(self) -> None:
        try:
            self.sync(now=True)
        finally:
            os.close(self._file)


def _remove_incomplete_line(file: int) -> int:
    """Cut an incomplete last line from an open file; returns the remaining size."""
    if not (size := os.fstat(file).st_size):
        return 0
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
        end = content.rfind(b"\n") + 1
    if end != size:
        os.ftruncate(file, end)
    return end
