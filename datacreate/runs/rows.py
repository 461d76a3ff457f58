"""Reads the rows of a run directory or of a file, and validates each one.

`filter`, and `train` for files, use `read_rows`. Rows of a file are validated by the function that validates
what a model writes (`formats.validate.validate_example`); rows of a run were validated when it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from datacreate.errors import DatacreateError, UsageError
from datacreate.formats.example import Example, FieldPath, Json
from datacreate.formats.infer import infer_format
from datacreate.formats.options import FormatOptions
from datacreate.formats.reader import RawRow, RowFile, has_rows
from datacreate.formats.task_format import TaskFormat, load_format
from datacreate.formats.validate import Candidate, Reason, validate_example
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import example_line

_FORMAT_ROWS = 20
"""The format is inferred from the first valid one of this many rows."""


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
    """A row that is no JSON object (reason `invalid_json`; `values` is its text) or not valid in the format."""

    number: int
    values: Json
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Rows:
    """The rows of one run directory or file. Each call of `read` starts at the first row."""

    path: Path
    format: TaskFormat
    total: int  # at least the number of rows
    read: Callable[[], Iterator[Row | InvalidRow]]
    inputs: tuple[Path, ...]  # files that an output must not overwrite


def read_rows(path: Path, options: FormatOptions | None = None) -> Rows:
    """The rows of a run directory (from its log) or of a file.

    The format of a file is the one that `options` name, or is inferred from the first rows and `options`. Raises
    UsageError, FormatError or ExampleError if the file is missing, has no rows or no format; RunError if the run cannot
    be read.
    """
    options = options or FormatOptions()
    if path.is_dir() and not has_rows(path):
        if flag := options.changed(FormatOptions.model_fields):
            raise UsageError(f"{path}: a run directory has a format; remove {flag}")
        return _rows_of_run(RunDirectory(path))
    source = RowFile(path)
    found = _format_of_file(source, options)
    total = sum(1 for _ in source.read())
    return Rows(path, found, total, lambda: (_checked(row, found) for row in source.read()), (path,))


def _rows_of_run(run: RunDirectory) -> Rows:
    config = run.read_config()

    def read() -> Iterator[Row | InvalidRow]:
        for number, values in enumerate(run.examples(), 1):
            yield Row(number, example_line(values), Candidate.of(values, config.format))

    files = (run.config_path, run.log_path, run.train_path, run.summary_path, run.card_path)
    return Rows(run.path, config.format, config.count, read, files)


def _checked(row: RawRow, format: TaskFormat) -> Row | InvalidRow:
    if row.error:
        return InvalidRow(row.number, row.line, Reason.INVALID_JSON, row.error)
    found = _validated(row.values, format)
    if isinstance(found, Candidate):
        return Row(row.number, row.line, found)
    return InvalidRow(row.number, row.values, *found)


def _validated(values: Mapping[str, Json], format: TaskFormat) -> Candidate | tuple[Reason, str]:
    try:
        found = validate_example(values, format, allow_empty=True)
    except KeyError as error:
        return Reason.SCHEMA_VIOLATION, f"the field {error.args[0]} is missing"
    except TypeError:
        return Reason.SCHEMA_VIOLATION, f"a field has not the type of the format {format.name}"
    if isinstance(found, Candidate):
        return found
    return found.reason, found.detail or found.reason.value.replace("_", " ")


def _format_of_file(source: RowFile, options: FormatOptions) -> TaskFormat:
    about_fields = [name for name in FormatOptions.model_fields if name != "format"]
    if options.format is not None and (flag := options.changed(about_fields)):
        raise UsageError(f"{flag} is for inferred formats; write it into the --format file")
    named = None if options.format is None else load_format(options.format)
    first_error: tuple[int, str] | None = None
    for row in islice(source.read(), _FORMAT_ROWS):
        try:
            if row.error:
                raise ValueError(row.error)
            if named is None:
                bound = infer_format(Example(row.values), options).format
                # One row binds a shipped format to its number of options; other rows may differ.
                return _relaxed(bound) if bound.name == "inferred" else load_format(bound.name)
            found = _validated(row.values, named)
            if isinstance(found, Candidate):
                return named
            raise ValueError(found[1])
        except (ValueError, DatacreateError) as error:
            first_error = first_error or (row.number, str(error))
    assert first_error is not None, "a file has a row"
    raise UsageError(f"{source.path}: line {first_error[0]}: {first_error[1]}")


def _relaxed(format: TaskFormat) -> TaskFormat:
    """A format inferred from one row, for the other rows: types and lengths may differ.

    Field names, labels, ranges and fixed options must be the same.
    """
    schema = _relax(format.schema, (), format)
    return replace(
        format, schema={**schema, "required": [*schema["properties"]], "additionalProperties": False}
    )


def _relax(schema: Mapping[str, Json], path: FieldPath, format: TaskFormat) -> dict[str, Json]:
    if isinstance(schema.get("properties"), Mapping):
        parts = {key: _relax(part, (*path, key), format) for key, part in schema["properties"].items()}
        required = [key for key, part in parts.items() if part]
        return {"type": "object", "properties": parts, "required": required}
    is_label = path == format.roles.answer and format.labels
    if is_label or "minimum" in schema or (path == format.roles.options and "const" in schema):
        return dict(schema)
    return {"type": "array"} if path == format.roles.options else {}
