"""Dataset filtering: what `datacreate filter` does with the rows of a run directory or of a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from datacreate.checkpoints import resolve
from datacreate.decontamination import find_test_sets, with_names
from datacreate.engines.factory import checkpoint_of, make_engine
from datacreate.engines.settings import EngineOptions
from datacreate.errors import InvalidRows, UsageError
from datacreate.files import storage_error
from datacreate.filters.base import FilterInputs, FilterSettings, RowCheck, Threshold, quality, threshold
from datacreate.filters.registry import filter_report, make_filters
from datacreate.formats.example import Json, field_at
from datacreate.formats.options import FormatOptions
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.validate import RejectReason
from datacreate.locking import replaced_by_one
from datacreate.messages import Notify, no_notify
from datacreate.runs.config import AuxiliaryModels
from datacreate.runs.rows import InvalidRow, Row, Rows, read_rows
from datacreate.selection.embeddings import SentenceEmbedder
from datacreate.selection.passed_vectors import PassedVectors
from datacreate.verification.verifier import Verifier

OnProgress = Callable[[int, int], None]
"""(rows done, most rows)"""

WriteLine = Callable[[str], object]

_BATCH = 256  # rows embedded or scored at once, and between two calls of `OnProgress`

_CALIBRATION_ROWS = 200  # at least, if there are as many, and up to about twice as many


class DatasetFilterSettings(EngineOptions, AuxiliaryModels, FilterSettings, FormatOptions):
    near: Threshold = threshold(
        "Drop rows whose inputs each have at least this Jaccard similarity to those of an earlier one, computed on "
        "words and word pairs.",
        default=0.7,
    )
    balance: bool = quality("Keep as many rows of each label as the rarest label has.", default=False)

    @model_validator(mode="after")
    def _check_verifier(self) -> Self:
        flag = self.first_changed_flag(EngineOptions.model_fields)
        if self.verifier is None and flag:
            raise ValueError(f"{flag}: that is for --verifier; remove it, or name a verifier")
        return self


@dataclass
class _Counts:
    rows: int = 0  # valid ones
    invalid: Counter[tuple[str, str]] = field(default_factory=Counter)  # (reason, field) -> rows
    first_invalid: dict[tuple[str, str], str] = field(default_factory=dict)  # its line number and detail
    rejected: Counter[RejectReason] = field(default_factory=Counter)
    labels_before: Counter[str] = field(default_factory=Counter)
    labels_after: Counter[str] = field(default_factory=Counter)
    kept: int = 0


def filter_rows(
    source: Path,
    settings: DatasetFilterSettings | None = None,
    *,
    out: Path | None = None,
    rejects: Path | None = None,
    notify: Notify = no_notify,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Check the rows of a run directory or of a file; returns the counts, as `filter --json` prints them.

    `out` gets the kept rows as they were read, `rejects` one object per dropped row (reason, detail, line, row); both
    are JSONL, and an older file is replaced. Raises UsageError if an output is an input or has no name of a JSONL file,
    or there is nothing to balance; InvalidRows, after `rejects` is written, if most rows are not valid; BenchmarkError
    or CheckpointError for what is not downloaded; EngineError if the verifier fails; StorageError if the disk is full;
    and what `read_rows` raises.
    """
    settings = settings or DatasetFilterSettings()
    names = ("all",) if settings.decontaminate is None else settings.decontaminate
    outputs = {flag: path for flag, path in (("--out", out), ("--rejects", rejects)) if path}
    _check_names(outputs)
    rows = read_rows(source, settings)
    own_files = [path for path in map(Path, names) if path.is_file()]
    _refuse_overwriting((*rows.files, *own_files), outputs)
    test_sets = find_test_sets(names, rows.format)
    filter_settings = with_names(settings, test_sets)
    if settings.balance and not rows.format.labels:
        raise UsageError(
            f"--balance: the format {rows.format.name} of {source} has no fixed labels; "
            "give them with --labels FIELD=a,b,c, or remove --balance"
        )
    inputs = FilterInputs(test_sets, origin="line")
    if settings.semantic:
        model = resolve(settings.embedding_model, "encoder")
        inputs = FilterInputs(test_sets, PassedVectors(SentenceEmbedder(model.path)), model.sha256, "line")
    filters: list[RowCheck] = [*make_filters(filter_settings, inputs)]
    counts, verifier = _Counts(), None
    refused: InvalidRows | None = None
    with _lines(rejects, notify) as write_rejects:
        try:
            with ExitStack() as stack:
                write = stack.enter_context(_lines(out, notify))
                if settings.verifier is not None:
                    checkpoint = checkpoint_of(settings.verifier, settings)
                    checkpoint.check_scores()
                    engine = make_engine(checkpoint, settings, count=rows.total, notify=notify)
                    stack.callback(engine.close)
                    verifier = Verifier(
                        engine, checkpoint.name, rows.format, tuple(filters), rows.instruction
                    )
                    filters.append(verifier)
                for filter in filters:
                    filter.prepare(notify)
                if verifier:
                    spaced = islice(rows.read(), 0, None, max(1, rows.total // _CALIBRATION_ROWS))
                    verifier.calibrate([row.candidate for row in spaced if isinstance(row, Row)])
                kept = _filtered(rows, filters, counts, write_rejects, on_progress)
                if settings.balance:
                    kept = _balanced(list(kept), rows.format, counts, write_rejects)
                for row in kept:
                    write(row.line)
                    counts.kept += 1
                _refuse_if_mostly_invalid(source, rows.format, counts, rejects)
                if not counts.rows:
                    raise UsageError(f"{source}: no rows; give a file or a run directory with rows")
        except InvalidRows as error:
            refused = error  # the rejects are written, so that the user can read them
    if refused:
        raise refused
    reports = filter_report(filter_settings, counts.rejected)
    if verifier:
        reports.append(verifier.report(counts.rejected[RejectReason.REJECTED_BY_VERIFIER]))
    labels = list(map(str, rows.format.labels or ()))
    return {
        "source": str(source),
        "format": rows.format.name,
        "rows": counts.rows + counts.invalid.total(),
        "invalid": counts.invalid.total(),
        "first_invalid": next(iter(counts.first_invalid.values()), None),
        "filters": reports,
        "embedding_model": settings.embedding_model if settings.semantic else None,
        "compared_with": [each.ref.model_dump() for each in test_sets],
        "balance": {"on": settings.balance, "rejected": counts.rejected[RejectReason.OVER_QUOTA]},
        "kept": counts.kept,
        "labels": {
            "before": {label: counts.labels_before[label] for label in labels},
            "after": {label: counts.labels_after[label] for label in labels},
        },
        "out": out and str(out),
        "rejects": rejects and str(rejects),
    }


def _refuse_if_mostly_invalid(
    source: Path, format: TaskFormat, counts: _Counts, rejects: Path | None
) -> None:
    invalid = counts.invalid.total()
    if invalid > counts.rows:
        [(kind, number)] = counts.invalid.most_common(1)
        where = rejects or "what --rejects FILE writes"
        raise InvalidRows(
            f"{source}: {invalid} of {counts.rows + invalid} rows are not valid in the format {format.name}, "
            f"{number} of them like {counts.first_invalid[kind]}; see {where}, name another --format, or repair them"
        )


def _label(row: Row, format: TaskFormat) -> str:
    return str(field_at(row.values, format.roles.answer or ())) if format.labels else ""


def _filtered(
    rows: Rows,
    filters: Sequence[RowCheck],
    counts: _Counts,
    rejects: WriteLine,
    on_progress: OnProgress | None,
) -> Iterator[Row]:
    """The rows that all filters accept; the others are counted and written to `rejects`."""
    read, done = rows.read(), 0
    while batch := list(islice(read, _BATCH)):
        if on_progress and done:
            on_progress(done, max(done, rows.total))
        done += len(batch)
        candidates = [row.candidate for row in batch if isinstance(row, Row)]
        for filter in filters:
            filter.prefetch(candidates)
        for row in batch:
            if isinstance(row, InvalidRow):
                counts.invalid[row.kind] += 1
                counts.first_invalid.setdefault(row.kind, f"line {row.number}: {row.detail}")
                _write_reject(rejects, row.reason, row.detail, row.number, row.values)
                continue
            counts.rows += 1
            label = _label(row, rows.format)
            counts.labels_before[label] += 1
            for filter in filters:
                if (detail := filter.match(row.candidate)) is not None:
                    counts.rejected[filter.reason] += 1
                    _write_reject(rejects, filter.reason, detail, row.number, json.loads(row.line))
                    break
            else:
                for filter in filters:
                    filter.add(row.candidate, row.number)
                counts.labels_after[label] += 1
                yield row


def _balanced(rows: Sequence[Row], format: TaskFormat, counts: _Counts, rejects: WriteLine) -> Iterator[Row]:
    """The first rows of each label, as many as the rarest label has."""
    rarest = min(map(str, format.labels or ()), key=counts.labels_after.__getitem__)
    share = counts.labels_after[rarest]
    if not share and counts.rows:
        raise UsageError(
            f"--balance: no row with the label {rarest!r} is left, so labels cannot be balanced; "
            "add such rows, or remove --balance"
        )
    counts.labels_after = Counter()
    for row in rows:
        label = _label(row, format)
        if counts.labels_after[label] < share:
            counts.labels_after[label] += 1
            yield row
        else:
            counts.rejected[RejectReason.OVER_QUOTA] += 1
            detail = f"{share} rows have this label already"
            _write_reject(rejects, RejectReason.OVER_QUOTA, detail, row.number, json.loads(row.line))


@contextmanager
def _lines(path: Path | None, notify: Notify) -> Iterator[WriteLine]:
    """Writes lines to a file that appears at the end of the block, unless the block fails; without a path to nothing.

    A link is followed, and a device or a pipe is written directly. Raises RunLocked, StorageError.
    """
    if path is None:
        yield lambda _: None
        return
    try:
        with (
            nullcontext(path) if _is_device(path) else replaced_by_one(path.resolve(), notify) as part,
            part.open("wb") as file,
        ):
            yield lambda line: file.write(line.encode("utf-8") + b"\n")
    except OSError as error:
        raise storage_error(path, error) from None


def _write_reject(write: WriteLine, reason: RejectReason, detail: str, number: int, row: Json) -> None:
    document = {"reason": reason, "detail": detail, "line": number, "row": row}
    write(json.dumps(document, ensure_ascii=False))


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _check_names(outputs: Mapping[str, Path]) -> None:
    """UsageError if an output (flag -> path) is a folder, or has a name of other files: those are never replaced."""
    for flag, path in outputs.items():
        if path.is_dir():
            raise UsageError(f"{flag} {path}: that is a folder; give a file")
        if not _is_device(path) and path.resolve().suffix.lower() not in (".jsonl", ".ndjson"):
            raise UsageError(f"{flag} {path}: rows are written as JSONL; give a name that ends in .jsonl")


def _refuse_overwriting(inputs: Sequence[Path], outputs: Mapping[str, Path]) -> None:
    """UsageError if an output (flag -> path) is an input, or another output."""
    taken = {path.resolve() for path in inputs}
    for flag, path in outputs.items():
        if path.resolve() in taken or any(path.exists() and path.samefile(p) for p in taken if p.exists()):
            raise UsageError(f"{flag} {path}: that would overwrite an input or output; give another file")
        taken.add(path.resolve())
