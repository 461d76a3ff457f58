"""Reads the rows of a run directory or of a file.

Rows of a file are validated like the examples that a model writes; rows of a run were validated when it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from datacreate.errors import DatacreateError, UsageError
from datacreate.formats import FormatOptions
from datacreate.formats.candidate import Candidate, validate_example
from datacreate.formats.example import Json
from datacreate.formats.infer_rows import infer_from_rows
from datacreate.formats.reject import RejectReason
from datacreate.formats.roles import Roles
from datacreate.formats.row_file import READABLE, RawRow, RowFile, is_row_file
from datacreate.formats.task_format import TaskFormat, load_format
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import example_line


@dataclass(frozen=True)
class ValidRow:
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
    def problem_key(self) -> tuple[RejectReason, str]:
        """The reason and the field: equal for rows that are invalid alike."""
        return self.reason, "" if self.reason is RejectReason.INVALID_JSON else self.detail.partition(":")[0]


@dataclass(frozen=True)
class ValidatedRows:
    """The rows of one run directory or file. Each call of `read` starts at the first row."""

    format: TaskFormat
    total: int  # at least the number of rows
    read: Callable[[], Iterator[ValidRow | InvalidRow]]
    files: tuple[Path, ...]  # which an output must not overwrite
    instruction: str | None = None  # of a run


def read_rows(path: Path, options: FormatOptions | None = None, known: Sequence[TaskFormat] = ()) -> ValidatedRows:
    """The rows of a run directory (from its log) or of a file.

    The format of a file is the one that `options` name, or is inferred from the rows and `options`. It is a `known` one
    that has the named schema or, if `options` agree, the fields of the first row. Raises UsageError if the file is
    missing, or has no rows or no format; RunError if the run cannot be read.
    """
    options = options or FormatOptions()
    if path.is_dir() and not is_row_file(path):
        if flag := options.first_changed_flag(FormatOptions.model_fields):
            raise UsageError(f"{path}: a run directory has a format; remove {flag}")
        run = RunDirectory(path)
        config = run.read_config()
        files = (run.config_path, run.log_path, run.train_path, run.summary_path, run.card_path)
        return ValidatedRows(
            config.format, config.count, partial(_read_run, run, config.format), files, config.spec.instruction
        )
    options.check_format(turns=False)
    file = RowFile(path)
    objects = (row.values for row in file.read(options.range_schema) if not row.error)
    first = next(objects, None)
    if first is None:
        invalid = next(file.read())
        raise UsageError(f"{path}: line {invalid.number}: {invalid.error}; {READABLE}")
    try:
        task_format = _format_of(chain([first], objects), first.keys(), options, known)
    except DatacreateError as error:
        message = str(error)  # the reader also names the path
        raise UsageError(message if message.startswith(f"{path}: ") else f"{path}: {message}") from None
    total = sum(1 for _ in file.read())
    return ValidatedRows(
        task_format, total, lambda: (_validated(row, task_format) for row in file.read(task_format.schema)), (path,)
    )


def _format_of(
    objects: Iterable[Mapping[str, Json]], fields: Collection[str], options: FormatOptions, known: Sequence[TaskFormat]
) -> TaskFormat:
    """The format that `options` name, or a known one that fits `fields` and them, or the one inferred."""
    if options.format:
        given = load_format(options.format)
        return next((task_format for task_format in known if task_format.schema == given.schema), given)
    for task_format in sorted(known, key=lambda each: -len(each.schema.get("required", ()))):  # most fields first
        if set(fields) >= set(task_format.schema.get("required", ())) and _agree(options, task_format.roles):
            return task_format
    return infer_from_rows(objects, options)


def _agree(options: FormatOptions, roles: Roles) -> bool:
    """Whether options, as far as they are given, name the fields of these roles."""
    answer, choices = (path and ".".join(path) for path in (roles.answer, roles.options))
    with_values, inputs = {*options.label_sets, *options.range}, set(map(".".join, roles.inputs))
    return (
        options.answer in (None, answer)
        and options.options in (None, choices)
        and (not with_values or answer in with_values)
        and inputs <= set(options.inputs or inputs)  # constant ones are not learned
        and inputs.isdisjoint(options.ignore)
        and options.turns is None
    )


def _validated(row: RawRow, task_format: TaskFormat) -> ValidRow | InvalidRow:
    if row.error:
        return InvalidRow(row.number, row.line, RejectReason.INVALID_JSON, row.error)
    result = validate_example(row.values, task_format, allow_empty=True)
    if isinstance(result, Candidate):
        return ValidRow(row.number, row.line, result)
    detail = result.detail or result.reason.value.replace("_", " ")
    return InvalidRow(row.number, row.values, result.reason, detail)


def _read_run(run: RunDirectory, task_format: TaskFormat) -> Iterator[ValidRow | InvalidRow]:
    for number, values in enumerate(run.examples(), 1):
        yield ValidRow(number, example_line(values), Candidate.of(values, task_format))
