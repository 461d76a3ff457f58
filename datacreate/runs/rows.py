"""Reads the rows of a run directory or of a file, and validates each one.

Rows of a file are validated as what a model writes; rows of a run were validated when it was made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from datacreate.errors import DatacreateError, UsageError
from datacreate.formats.example import Json
from datacreate.formats.infer_rows import infer_from_rows
from datacreate.formats.options import FormatOptions
from datacreate.formats.reader import READABLE, RawRow, RowFile, is_row_file
from datacreate.formats.task_format import TaskFormat, load_format
from datacreate.formats.validate import Candidate, RejectReason, validate_example
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import example_line


@dataclass(frozen=True)
class Row:
    """A valid row; `line` is its JSON, as it was read from JSONL."""

    number: int  # of the line in a text file, of the row in others; from 1
    line: str
    candidate: Candidate

    @property
    def values(self) -> Mapping[str, Json]:
        return self.candidate.example.values


@dataclass(frozen=True)
class InvalidRow:
    """A row that cannot be read (reason `invalid_json`; `values` is its text) or is not valid in the format."""

    number: int
    values: Json
    reason: RejectReason
    detail: str

    @property
    def kind(self) -> tuple[RejectReason, str]:
        """The reason and the field: equal for rows that are invalid alike."""
        return self.reason, "" if self.reason is RejectReason.INVALID_JSON else self.detail.partition(":")[0]


@dataclass(frozen=True)
class Rows:
    """The rows of one run directory or file. Each call of `read` starts at the first row."""

    path: Path
    format: TaskFormat
    total: int  # at least the number of rows
    read: Callable[[], Iterator[Row | InvalidRow]]
    files: tuple[Path, ...]  # which an output must not overwrite
    instruction: str | None = None  # of a run


def read_rows(path: Path, options: FormatOptions | None = None, known: Sequence[TaskFormat] = ()) -> Rows:
    """The rows of a run directory (from its log) or of a file.

    The format of a file is the one that `options` name, or is inferred from the rows and `options`. Without options it
    is the first of the `known` formats whose fields the first row has. Raises
    UsageError, FormatError or ExampleError if the file is missing, has no rows or no format; RunError if the run cannot
    be read.
    """
    options = options or FormatOptions()
    if path.is_dir() and not is_row_file(path):
        if flag := options.first_changed_flag(FormatOptions.model_fields):
            raise UsageError(f"{path}: a run directory has a format; remove {flag}")
        return _rows_of_run(RunDirectory(path))
    options.check_format(turns=False)
    source = RowFile(path)
    total, first_error = 0, ""

    def objects() -> Iterator[Mapping[str, Json]]:
        nonlocal total, first_error
        for total, row in enumerate(source.read(options.range_schema), 1):  # noqa: B007 (the number of rows)
            first_error = first_error or f"line {row.number}: {row.error}"
            if not row.error:
                yield row.values

    rows = objects()
    first = next(rows, None)
    if first is None:
        raise UsageError(f"{path}: {first_error}; {READABLE}")
    try:
        named = load_format(options.format) if options.format else None
        if not options.first_changed_flag(FormatOptions.model_fields):
            named = next(
                (each for each in known if first.keys() >= set(each.schema.get("required", ()))), None
            )
        format = named or infer_from_rows(chain([first], rows), options)
    except DatacreateError as error:
        message = str(error)  # the reader also names the path
        raise UsageError(message if message.startswith(f"{path}: ") else f"{path}: {message}") from None
    deque(rows, maxlen=0)  # the number of rows is known after the last

    def read() -> Iterator[Row | InvalidRow]:
        return (_checked(row, format) for row in source.read(format.schema))

    return Rows(path, format, total, read, (path,))


def _rows_of_run(run: RunDirectory) -> Rows:
    config = run.read_config()

    def read() -> Iterator[Row | InvalidRow]:
        for number, values in enumerate(run.examples(), 1):
            yield Row(number, example_line(values), Candidate.of(values, config.format))

    files = (run.config_path, run.log_path, run.train_path, run.summary_path, run.card_path)
    return Rows(run.path, config.format, config.count, read, files, config.spec.instruction)


def _checked(row: RawRow, format: TaskFormat) -> Row | InvalidRow:
    if row.error:
        return InvalidRow(row.number, row.line, RejectReason.INVALID_JSON, row.error)
    found = validate_example(row.values, format, allow_empty=True)
    if isinstance(found, Candidate):
        return Row(row.number, row.line, found)
    detail = found.detail or found.reason.value.replace("_", " ")
    return InvalidRow(row.number, row.values, found.reason, detail)
