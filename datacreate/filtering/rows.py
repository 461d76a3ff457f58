"""The rows of a run or of a JSONL file, one by one, each with the line that it is written as."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from datacreate.errors import DatacreateError, UsageError
from datacreate.formats.example import Example, Json, field_at, find_unsupported_value
from datacreate.formats.infer import infer_format
from datacreate.formats.task_format import TaskFormat, answer_text, rule_holds, load_format
from datacreate.formats.validate import Candidate, Reason
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import example_line

_LOOKED_AT = 20
"""Rows in front that are tried for a format: an odd one says nothing about the rest."""


@dataclass(frozen=True)
class Row:
    """A valid row; `line` is its JSON as it was read, without the line break."""

    number: int  # of its line, from 1; of the example in a run
    line: str
    candidate: Candidate


@dataclass(frozen=True)
class InvalidRow:
    """A line that is no row of the format."""

    number: int
    line: str
    reason: Reason
    why: str


@dataclass(frozen=True)
class Rows:
    """Where rows come from. `read` begins anew at each call; `total` is how many lines there are at most."""

    where: Path
    format: TaskFormat
    total: int
    read: Callable[[], Iterator[Row | InvalidRow]]
    inputs: tuple[Path, ...]  # what must not be written over


def read_rows(
    path: Path,
    format: str | None = None,
    labels: Mapping[str, str] | None = None,
    ranges: Mapping[str, str] | None = None,
) -> Rows:
    """The rows of a run directory (from its log) or of a JSONL file.

    A file's format is `format` (a shipped name or a file), else worked out from its first rows,
    `labels` (field -> "a,b,c") and `ranges` (field -> "low..high"). Raises
    UsageError, FormatError or ExampleError if the file is not there, has no rows or no format; RunError
    if the run cannot be read.
    """
    if path.is_dir():
        if format or labels or ranges:
            raise UsageError(f"{path}: a run has its format; leave --format, --labels and --range out")
        return _of_run(RunDirectory(path))
    try:
        with path.open("rb") as file:
            total = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b"")) + 1
        found = _format_of(path, format, labels, ranges)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; give a run directory or a JSONL file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give another file") from None
    return Rows(path, found, total, lambda: _judged(path, found), (path,))


def _of_run(run: RunDirectory) -> Rows:
    config = run.read_config()

    def read() -> Iterator[Row | InvalidRow]:
        for number, values in enumerate(run.examples(), 1):
            yield Row(number, example_line(values), Candidate.of(values, config.format))

    kept = (run.config_path, run.log_path, run.train_path, run.summary_path, run.card_path)
    return Rows(run.path, config.format, config.count, read, kept)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank; only "\\n" ends one, since texts hold U+2028 and their like."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if content := content.strip(b" \t\r\n"):
                yield number, content


def _parsed(line: bytes) -> tuple[str, Json]:
    """The line as text and as JSON; ValueError, in words, if it is no object that UTF-8 can spell."""
    try:
        text = line.decode("utf-8")
        values = json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at column {error.colno} ({error.msg})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("not an object")
    if flaw := find_unsupported_value(values):
        raise ValueError(flaw)
    return text, values


def _format_of(
    path: Path, name: str | None, labels: Mapping[str, str] | None, ranges: Mapping[str, str] | None
) -> TaskFormat:
    if name is not None and (labels or ranges):
        flag = "--labels" if labels else "--range"
        raise UsageError(f"{flag} is for inferred formats; write them into the --format file")
    named = None if name is None else load_format(name)
    said: tuple[int, str] | None = None
    for number, line in islice(_lines(path), _LOOKED_AT):
        try:
            _, values = _parsed(line)
            if named is None:
                found = infer_format(Example(values), None, labels, ranges).format
                # One row narrows a shipped format (so many options, no context); the others may differ.
                return found if found.name == "inferred" else load_format(found.name)
            if flaw := _flaw(values, named):
                raise ValueError(flaw)
            return named
        except (ValueError, DatacreateError) as error:
            said = said or (number, str(error))
    if said is None:
        raise UsageError(f"{path}: no rows; give a file with one JSON object a line")
    raise UsageError(f"{path}: line {said[0]}: {said[1]}")


def _judged(path: Path, format: TaskFormat) -> Iterator[Row | InvalidRow]:
    for number, line in _lines(path):
        try:
            text, values = _parsed(line)
        except ValueError as error:
            shown = line.decode("utf-8", "replace")
            yield InvalidRow(number, shown, Reason.INVALID_JSON, str(error))
            continue
        if flaw := _flaw(values, format):
            yield InvalidRow(number, text, Reason.SCHEMA_VIOLATION, flaw)
        else:
            yield Row(number, text, Candidate.of(values, format))


def _flaw(values: Mapping[str, Json], format: TaskFormat) -> str | None:
    """Why an object is no row of the format; None if it is one."""
    properties = format.schema["properties"]
    if format.name == "inferred":  # from one row: types and lengths of the others may differ
        if set(values) != set(properties):
            return f"fields {', '.join(values)}, where the format has {', '.join(properties)}"
    elif not format.validator.is_valid(values):
        error = next(format.validator.iter_errors(values))
        place = ".".join(map(str, error.absolute_path)) or "the row"
        return f"{place}: {error.message[:150]} (format {format.name})"
    try:
        format.text_of(values)
        if format.labels and format.roles.answer:
            label = field_at(values, format.roles.answer)
            if not any(type(label) is type(known) and label == known for known in format.labels):
                known = ", ".join(map(answer_text, format.labels))
                return f"the label {answer_text(label)[:40]!r} is none of {known}"
        for rule in sorted(format.rules):
            if not rule_holds(rule, format.roles, values):
                return f"breaks the rule {rule} (format {format.name})"
        return _beyond(values, format.schema) if format.name == "inferred" else None
    except (KeyError, TypeError):
        return f"a field of the format {format.name} is not there"


def _beyond(values: Json, schema: Mapping[str, Json], name: str = "") -> str | None:
    """The first number that is not in its range, if ranges were told; KeyError for one that is not there."""
    if "minimum" in schema:
        low, high = schema["minimum"], schema["maximum"]
        number = isinstance(values, int | float) and not isinstance(values, bool)
        return None if number and low <= values <= high else f"{name} is not in the range {low}..{high}"
    for key, part in schema.get("properties", {}).items():
        if flaw := _beyond(values[key], part, f"{name}.{key}" if name else key):
            return flaw
    return None
