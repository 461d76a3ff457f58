"""One pass over the rows: each filter is asked in its order, what all let through is kept."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Self

from datacreate.errors import UsageError
from datacreate.filtering.output import Lines, refuse_overwriting, written
from datacreate.filters.base import Filter, Say, silently
from datacreate.filters.registry import prepare
from datacreate.formats.example import Json, canonical_json, field_at
from datacreate.formats.roles import answer_text
from datacreate.formats.validate import Reason
from datacreate.runs.rows import InvalidRow, Row, Rows
from datacreate.selection.embeddings import Embedder
from datacreate.verification.quotas import Quotas

Progress = Callable[[int, int], None]
"""(rows done, rows at most)"""

_TOLD_EVERY = 256
_BATCH = 256  # rows embedded or scored at once: fewer than an embedder remembers


@dataclass
class Screened:
    """What a screening found. Label counts are by how a label is spelt, empty without a fixed label set."""

    rows: int = 0  # the valid ones
    invalid: int = 0
    first_invalid: str = ""  # line and reason of the first
    dropped: Counter[Reason] = field(default_factory=Counter)
    kept: int = 0
    labels_before: dict[str, int] = field(default_factory=dict)
    labels_after: dict[str, int] = field(default_factory=dict)


def screen(
    rows: Rows,
    filters: Sequence[Filter],
    *,
    balance: bool = False,
    out: Path | None = None,
    rejects: Path | None = None,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    say: Say = silently,
) -> Screened:
    """Pass the rows through the filters, and write the kept and the rejected ones if asked to.

    With `balance`, each label keeps as many rows as the rarest has, the first ones. Of rows that
    repeat each other the first stays. `out` gets the kept rows as they were read, `rejects` an
    object per dropped line: reason, because, line, row. The `embedder` that filters ask is given texts
    in batches beforehand; it remembers them. `say` is told what the filters have to prepare. Raises
    UsageError if an output is an input, if no row is valid, or if there is nothing to balance;
    BenchmarkError if a benchmark's rows cannot be read; StorageError if the disk is full.
    """
    refuse_overwriting(rows.inputs, {"--out": out, "--rejects": rejects})
    labels = rows.format.labels or ()
    if balance and not labels:
        raise UsageError(
            f"--balance: the format {rows.format.name} of {rows.path} has no fixed label set; "
            "say it with --labels FIELD=a,b,c, or leave --balance out"
        )
    prepare(filters, say)
    found = Screened(labels_before=_none_of(labels), labels_after=_none_of(labels))
    with ExitStack() as stack:
        kept_file, rejects_file = stack.enter_context(written(out, rejects))
        spool = stack.enter_context(_Spool(kept_file, balance, out))
        for row in _passed(
            rows, _ahead(rows.read(), filters, embedder), filters, found, rejects_file, progress
        ):
            label = _label(row, rows)
            if labels:
                found.labels_after[answer_text(label)] += 1
            spool.keep(row.number, label, row.line)
            found.kept += 1
        if not found.rows:
            why = f": {found.first_invalid}" if found.invalid else ""
            raise UsageError(f"{rows.path}: no rows of the format {rows.format.name}{why}")
        if balance:
            _balance(spool, labels, found, kept_file, rejects_file)
    return found


def _none_of(labels: Sequence[Json]) -> dict[str, int]:
    return {answer_text(label): 0 for label in labels}


def _label(row: Row, rows: Rows) -> Json:
    path = rows.format.roles.answer
    return field_at(row.candidate.example.values, path) if path and rows.format.labels else None


def _ahead(
    read: Iterator[Row | InvalidRow], filters: Sequence[Filter], embedder: Embedder | None
) -> Iterator[Row | InvalidRow]:
    """The same rows; models see them in batches beforehand, since one by one is many times slower."""
    while batch := list(islice(read, _BATCH)):
        candidates = [row.candidate for row in batch if isinstance(row, Row)]
        if embedder:
            embedder.encode([candidate.text for candidate in candidates])
        for each in filters:
            each.ahead(candidates)
        yield from batch


def _passed(
    rows: Rows,
    read: Iterator[Row | InvalidRow],
    filters: Sequence[Filter],
    found: Screened,
    rejects: Lines,
    progress: Progress | None,
) -> Iterator[Row]:
    """The rows that no filter objects to; the others are counted and written down."""
    for done, row in enumerate(read, 1):
        if progress and done % _TOLD_EVERY == 0:
            progress(done, max(done, rows.total))
        if isinstance(row, InvalidRow):
            found.first_invalid = found.first_invalid or f"line {row.number}: {row.detail}"
            found.invalid += 1
            whole = row.line if row.reason is Reason.UNPARSABLE else json.loads(row.line)
            rejects.write(_reject(row.reason, row.detail, row.number, whole))
            continue
        found.rows += 1
        if rows.format.labels:
            found.labels_before[answer_text(_label(row, rows))] += 1
        for filter in filters:
            if match := filter.match(row.candidate):
                found.dropped[filter.reason] += 1
                rejects.write(_reject(filter.reason, match.what, row.number, json.loads(row.line)))
                break
        else:
            for filter in filters:
                filter.add(row.candidate)
            yield row


def _reject(reason: Reason, because: str, number: int, row: Json) -> str:
    document = {"reason": reason, "because": because, "line": number, "row": row}
    return json.dumps(document, ensure_ascii=False)


class _Spool:
    """Kept rows: written at once, or, where a balance comes after, put aside on the disk."""

    def __init__(self, out: Lines, aside: bool, place: Path | None) -> None:
        self._out = out
        self._aside: IO[bytes] | None = None
        if aside:
            self._aside = tempfile.TemporaryFile(dir=place and place.parent)  # noqa: SIM115 (closed below)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._aside:
            self._aside.close()

    def keep(self, number: int, label: Json, line: str) -> None:
        if self._aside is None:
            self._out.write(line)
        else:
            self._aside.write(b"%d\t%s\t%s\n" % (number, canonical_json(label).encode(), line.encode()))

    def again(self) -> Iterator[tuple[int, Json, str]]:
        """What was put aside: number, label and line."""
        assert self._aside is not None
        self._aside.seek(0)
        for entry in self._aside:
            number, label, line = entry.decode()[:-1].split("\t", 2)
            yield int(number), json.loads(label), line


def _balance(spool: _Spool, labels: Sequence[Json], found: Screened, out: Lines, rejects: Lines) -> None:
    """Keep of each label as many rows as the rarest has."""
    rarest = min(found.labels_after, key=lambda label: found.labels_after[label])
    share = found.labels_after[rarest]
    if not share:
        raise UsageError(
            f"--balance: no row with the label {rarest!r} is kept, so that nothing can be even; "
            "add such rows, or leave --balance out"
        )
    quotas = Quotas(labels, share * len(labels))
    for number, label, line in spool.again():
        if quotas.remaining(label):
            quotas.add(label)
            out.write(line)
            continue
        found.dropped[Reason.OVER_QUOTA] += 1
        rejects.write(
            _reject(Reason.OVER_QUOTA, f"its label has {share} rows already", number, json.loads(line))
        )
    found.kept = share * len(labels)
    found.labels_after = dict.fromkeys(found.labels_after, share)
