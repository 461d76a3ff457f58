"""Dataset filtering: `datacreate filter` checks the rows of a run directory or of a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from datacreate.checkpoints.checkpoint import resolve
from datacreate.decontamination import find_decontamination_sets, with_names
from datacreate.engines.factory import LocalModel, make_engine, resolve_checkpoint
from datacreate.engines.settings import EngineOptions
from datacreate.errors import UsageError
from datacreate.files import storage_error
from datacreate.filters.filter import FilterInputs, RowCheck, first_reject
from datacreate.filters.registry import filter_report, make_filters
from datacreate.filters.settings import FilterOptions, Threshold, threshold_setting
from datacreate.formats.candidate import RejectReason
from datacreate.formats.example import Json, field_at
from datacreate.formats.options import FormatOptions
from datacreate.formats.task_format import TaskFormat
from datacreate.locking import exclusive_replacement
from datacreate.messages import Notify, no_notify
from datacreate.runs.config import AuxiliaryModelOptions
from datacreate.runs.rows import InvalidRow, Row, Rows, read_rows
from datacreate.selection.embeddings import PassedVectors, SentenceEmbedder
from datacreate.verification.verifier_check import VerifierCheck

OnProgress = Callable[[int, int], None]
"""(rows done, most rows)"""

WriteLine = Callable[[str], object]

_BATCH = 256  # rows embedded or scored at once, and between two calls of `OnProgress`

_CALIBRATION_ROWS = 200
"""Rows that calibrate the verifier: about one to two times this number, or all rows if there are fewer."""


class FilterConfig(EngineOptions, AuxiliaryModelOptions, FilterOptions, FormatOptions):
    near: Threshold = threshold_setting(
        "Reject rows whose inputs each have at least this Jaccard similarity to those of an earlier one, computed on "
        "words and word pairs.",
        default=0.7,
    )

    @model_validator(mode="after")
    def _check_verifier(self) -> Self:
        flag = self.first_changed_flag(EngineOptions.model_fields)
        if self.verifier is None and flag:
            raise ValueError(f"{flag} only applies to --verifier; remove it, or name a verifier")
        return self


@dataclass
class _FilterReport:
    """Counts the rows, and writes the dropped ones."""

    format: TaskFormat
    write_reject: WriteLine
    invalid: int = 0
    first_invalid: str | None = None  # its line number and detail
    rejected: Counter[RejectReason] = field(default_factory=Counter)
    labels_before: Counter[str] = field(default_factory=Counter)  # of valid rows; "" without fixed labels
    labels_after: Counter[str] = field(default_factory=Counter)  # of kept rows

    @property
    def rows(self) -> int:
        """The number of valid rows."""
        return self.labels_before.total()

    def label(self, row: Row) -> str:
        return str(field_at(row.values, self.format.roles.answer or ())) if self.format.labels else ""

    def add_invalid(self, row: InvalidRow) -> None:
        self.invalid += 1
        self.first_invalid = self.first_invalid or f"line {row.number}: {row.detail}"
        self._write(row.reason, row.detail, row.number, row.values)

    def reject(self, row: Row, reason: RejectReason, detail: str) -> None:
        """Count and write a valid row that is dropped."""
        self.rejected[reason] += 1
        self._write(reason, detail, row.number, json.loads(row.line))

    def _write(self, reason: RejectReason, detail: str, number: int, values: Json) -> None:
        document = {"reason": reason, "detail": detail, "line": number, "row": values}
        self.write_reject(json.dumps(document, ensure_ascii=False))

    def counts(self) -> dict[str, Any]:
        labels = list(map(str, self.format.labels or ()))
        return {
            "rows": self.rows + self.invalid,
            "invalid": self.invalid,
            "first_invalid": self.first_invalid,
            "kept": self.labels_after.total(),
            "labels": {
                "before": {label: self.labels_before[label] for label in labels},
                "after": {label: self.labels_after[label] for label in labels},
            },
        }

    def check(self, source: Path) -> None:
        """Raise UsageError if most rows are not valid, or if there are no rows."""
        if self.invalid > self.rows:
            raise UsageError(
                f"{source}: {self.invalid} of {self.rows + self.invalid} rows are not valid in the format "
                f"{self.format.name}, the first is {self.first_invalid}; name another --format, or repair them"
            )
        if not self.rows:
            raise UsageError(f"{source}: no rows; give a file or a run directory with rows")


def filter_rows(
    source: Path,
    config: FilterConfig | None = None,
    *,
    out: Path | None = None,
    rejects: Path | None = None,
    notify: Notify = no_notify,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Check the rows of a run directory or of a file; returns the counts, as `filter --json` prints them.

    `out` gets the kept rows as they were read, `rejects` one object per dropped row (reason, detail, line, row); both
    are JSONL, and an older file is replaced. Raises UsageError if an output is an input or has no name of a JSONL file,
    or most rows are not valid; BenchmarkError or CheckpointError if a benchmark or model is not downloaded; EngineError
    if the verifier fails; StorageError if the disk is full; and what `read_rows` raises.
    """
    config = config or FilterConfig()
    names = ("all",) if config.decontaminate is None else config.decontaminate
    rows = read_rows(source, config)
    _check_outputs({"--out": out, "--rejects": rejects}, (*rows.files, *map(Path, names)))
    sets = find_decontamination_sets(names, rows.format)
    settings = with_names(config, sets)
    vectors = None
    if config.semantic:
        vectors = PassedVectors(SentenceEmbedder(resolve(config.embedding_model, "encoder").path))
    checks: list[RowCheck] = [*make_filters(settings, FilterInputs(sets, vectors, number_prefix="line"))]
    verifier: VerifierCheck | None = None
    with _jsonl_output(rejects, notify) as write_reject, _jsonl_output(out, notify) as write, ExitStack() as stack:
        report = _FilterReport(rows.format, write_reject)
        if config.verifier is not None:
            verifier = _open_verifier(config.verifier, config, rows, checks, stack, notify)
            checks.append(verifier)
        for check in checks:
            check.prepare(notify)
        if verifier:
            sample = islice(rows.read(), 0, None, max(1, rows.total // _CALIBRATION_ROWS))
            verifier.calibrate([row.candidate for row in sample if isinstance(row, Row)])
        for row in _filtered(rows, checks, report, on_progress):
            write(row.line)
        report.check(source)
    filters = filter_report(settings, report.rejected)
    if verifier:
        filters.append(verifier.report(report.rejected[RejectReason.REJECTED_BY_VERIFIER]))
    return {
        "source": str(source),
        "format": rows.format.name,
        **report.counts(),
        "filters": filters,
        "embedding_model": config.embedding_model if config.semantic else None,
        "compared_with": [each.ref.model_dump() for each in sets],
        "out": out and str(out),
        "rejects": rejects and str(rejects),
    }


def _open_verifier(
    name: str, config: FilterConfig, rows: Rows, others: Sequence[RowCheck], stack: ExitStack, notify: Notify
) -> VerifierCheck:
    """The check by the model `name`, whose engine is closed with `stack`."""
    checkpoint = resolve_checkpoint(name, config)
    checkpoint.check_scores()
    engine = make_engine(LocalModel(checkpoint, config, verifies=True), count=rows.total, notify=notify)
    stack.callback(engine.close)
    return VerifierCheck(engine, checkpoint.name, rows.format, tuple(others), rows.instruction)


def _filtered(
    rows: Rows, checks: Sequence[RowCheck], report: _FilterReport, on_progress: OnProgress | None
) -> Iterator[Row]:
    """The rows that pass all checks; counts all rows in `report`."""
    remaining, done = rows.read(), 0
    while batch := list(islice(remaining, _BATCH)):
        if on_progress and done:
            on_progress(done, max(done, rows.total))
        done += len(batch)
        candidates = [row.candidate for row in batch if isinstance(row, Row)]
        for check in checks:
            check.prefetch(candidates)
        for row in batch:
            if isinstance(row, InvalidRow):
                report.add_invalid(row)
            elif _passes(row, checks, report):
                yield row


def _passes(row: Row, checks: Sequence[RowCheck], report: _FilterReport) -> bool:
    """Check a valid row and count it; one that passes is added to the checks."""
    report.labels_before[report.label(row)] += 1
    if reject := first_reject(checks, row.candidate):
        report.reject(row, reject.reason, reject.detail)
        return False
    for check in checks:
        check.add(row.candidate, row.number)
    report.labels_after[report.label(row)] += 1
    return True


@contextmanager
def _jsonl_output(path: Path | None, notify: Notify) -> Iterator[WriteLine]:
    """Write lines to a file that appears at the end of the block, unless the block fails; nothing without a path.

    A link is followed. Raises RunLocked, StorageError.
    """
    if path is None:
        yield lambda _: None
        return
    try:
        with exclusive_replacement(path.resolve(), notify) as part, part.open("wb") as file:
            yield lambda line: file.write(line.encode("utf-8") + b"\n")
    except OSError as error:
        raise storage_error(path, error) from None


def _check_outputs(outputs: Mapping[str, Path | None], inputs: Sequence[Path]) -> None:
    """Raise UsageError if an output (flag -> path) is an input or another output, or has no name of a JSONL file."""
    taken = {path.resolve() for path in inputs}
    for flag, path in outputs.items():
        if path is None:
            continue
        if path.resolve().suffix.lower() not in (".jsonl", ".ndjson"):
            raise UsageError(f"{flag} {path}: rows are written as JSONL; give a name that ends in .jsonl")
        if path.resolve() in taken:
            raise UsageError(f"{flag} {path}: that would overwrite an input or output; give another file")
        taken.add(path.resolve())
