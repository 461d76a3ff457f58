"""Reads the rows of a run directory or of a file, and validates each one; and the formatting examples of a run.

`filter`, and for files `train` and `evaluate --test`, use `read_rows`. Rows of a file are validated by the function
that validates what a model writes (`formats.validate.validate_example`); rows of a run were validated when it was made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from datacreate.benchmarks import find_benchmark, formatting_examples
from datacreate.errors import DatacreateError, ExampleError, UsageError
from datacreate.formats.declare import declare_format
from datacreate.formats.example import Example, Json, find_unsupported_value, value_at
from datacreate.formats.infer import InferredFormat, infer_format
from datacreate.formats.infer_rows import infer_from_examples, infer_from_rows
from datacreate.formats.options import FormatOptions
from datacreate.formats.reader import MAX_EXAMPLES, READABLE, RawRow, RowFile, has_rows, load_examples, typed
from datacreate.formats.schema_utils import Schema
from datacreate.formats.task_format import TaskFormat, load_format
from datacreate.formats.validate import Candidate, Reason, validate_example
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import example_line
from datacreate.selection.strategies import find_strategy


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

    @property
    def kind(self) -> tuple[Reason, str]:
        """The reason and the field: equal for rows that are invalid alike."""
        return self.reason, "" if self.reason is Reason.INVALID_JSON else self.detail.partition(":")[0]


@dataclass(frozen=True)
class Rows:
    """The rows of one run directory or file. Each call of `read` starts at the first row."""

    path: Path
    format: TaskFormat
    total: int  # at least the number of rows
    read: Callable[[], Iterator[Row | InvalidRow]]
    inputs: tuple[Path, ...]  # files that an output must not overwrite
    instruction: str | None = None  # of a run


def read_rows(path: Path, options: FormatOptions | None = None) -> Rows:
    """The rows of a run directory (from its log) or of a file.

    The format of a file is the one that `options` name, or is inferred from the rows and `options`. Raises UsageError,
    FormatError or ExampleError if the file is missing, has no rows or no format; RunError if the run cannot be read.
    """
    options = options or FormatOptions()
    if path.is_dir() and not has_rows(path):
        if flag := options.changed(FormatOptions.model_fields):
            raise UsageError(f"{path}: a run directory has a format; remove {flag}")
        return _rows_of_run(RunDirectory(path))
    about_fields = [name for name in FormatOptions.model_fields if name != "format"]
    if options.format is not None and (flag := options.changed(about_fields)):
        raise UsageError(f"{flag} is for inferred formats; write it into the --format file")
    source = RowFile(path)
    total, first_error = 0, ""

    def objects() -> Iterator[Mapping[str, Json]]:
        nonlocal total, first_error
        for total, row in enumerate(source.read(), 1):  # noqa: B007 (the number of rows)
            first_error = first_error or f"line {row.number}: {row.error}"
            if not row.error:
                yield typed(row, ranges).values if source.untyped else row.values

    ranges = _ranges(options)
    rows = objects()
    first = next(rows, None)
    if first is None:
        raise UsageError(f"{path}: {first_error}; {READABLE}")
    try:
        format = (
            load_format(options.format) if options.format else infer_from_rows(chain([first], rows), options)
        )
    except DatacreateError as error:
        message = str(error)  # the reader names the path, too
        raise UsageError(message if message.startswith(f"{path}: ") else f"{path}: {message}") from None
    deque(rows, maxlen=0)  # the number of rows is known after the last

    def read() -> Iterator[Row | InvalidRow]:
        for row in source.read():
            yield _checked(typed(row, format.schema) if source.untyped else row, format)

    return Rows(path, format, total, read, (path,))


def examples_and_format(config: CreateConfig) -> tuple[tuple[Example, ...], InferredFormat]:
    """The formatting examples of a run and their format: from files, from a benchmark, or none beside an instruction.

    Raises what `read_examples` and `declare_format` raise, BenchmarkError, and UsageError if there are too many for the
    method, or too few for the prompts.
    """
    if config.sources:
        found = read_examples(config.sources, config, config.example_limit)
    elif config.benchmark:
        found = _draw_examples(config, config.benchmark)
    else:
        found = (), declare_format(config)
    _check_number(config, len(found[0]))
    return found


def _check_number(config: CreateConfig, number: int) -> None:
    """Raise UsageError if the run cannot use so many formatting examples, or has too few to show."""
    if config.method == "paper" and number > 1:
        one = "--examples 1" if config.benchmark else "--example-limit 1"
        raise UsageError(f"--method paper starts from one example, and there are {number}; add {one}")
    if config.shots > max(1, number) and find_strategy(config.strategy).queue == "root":
        raise UsageError(
            f"--shots {config.shots}: --strategy {config.strategy} shows only formatting examples, of which there "
            f"{'is 1' if number == 1 else f'are {number}'}; give more with --example, or use another strategy"
        )


def _draw_examples(config: CreateConfig, name: str) -> tuple[tuple[Example, ...], InferredFormat]:
    """Rows of a benchmark as the formatting examples, in its format."""
    benchmark = find_benchmark(name)
    seed = config.seed if config.example_seed is None else config.example_seed
    drawn, note = formatting_examples(benchmark, seed, config.examples)
    root, *others = map(Example, drawn)
    inferred = infer_format(root, FormatOptions(format=benchmark.format_name), others=others)
    return (root, *others), replace(inferred, notes=(note, *inferred.notes))


def read_examples(
    sources: Sequence[Path | Mapping[str, Json]], options: FormatOptions, limit: int | None = None
) -> tuple[tuple[Example, ...], InferredFormat]:
    """The formatting examples of a run, without repeated ones, and their format.

    `sources`: files, of each of which at most `limit` rows are taken, and the values of examples. Raises ExampleError,
    with file and line, for an example that cannot be read or does not fit; and what `infer_format` raises.
    """
    schema = load_format(options.format).schema if options.format else _ranges(options)
    examples: dict[str, Example] = {}
    repeated: list[str] = []
    for number, source in enumerate(sources, 1):
        if isinstance(source, Path):
            found = load_examples(source, limit, schema)
        else:
            found = [Example(source, f"example {number}" if len(sources) > 1 else "")]
        for each in found:
            if message := find_unsupported_value(each.values):
                raise ExampleError(f"{each.where or 'the example: '}{message}; fix the example")
            if each.id in examples:
                repeated.append(f"{each.where}the same as {examples[each.id].origin}; left out")
            examples.setdefault(each.id, each)
    if len(examples) > MAX_EXAMPLES:
        raise ExampleError(
            f"--example: {len(examples)} examples, and {MAX_EXAMPLES} are the most; take fewer with --example-limit K"
        )
    used, inferred = infer_from_examples(list(examples.values()), options)
    return used, replace(
        inferred, notes=(*inferred.notes, *repeated, *_contradictions(used, inferred.format))
    )


def _contradictions(examples: Sequence[Example], format: TaskFormat) -> list[str]:
    """Notes about examples with the same inputs as another, and another answer."""
    first: dict[str, Example] = {}
    notes: list[str] = []
    for each in examples:
        same = first.setdefault(Candidate.of(each.values, format).key, each)
        if value_at(same.values, format.roles.answer) != value_at(each.values, format.roles.answer):
            notes.append(
                f"{each.where}the same inputs as {same.origin}, with another answer; keep the right one"
            )
    return notes


def _ranges(options: FormatOptions) -> Schema:
    return {"properties": {name: {"type": "number"} for name in options.ranges}}


def _rows_of_run(run: RunDirectory) -> Rows:
    config = run.read_config()

    def read() -> Iterator[Row | InvalidRow]:
        for number, values in enumerate(run.examples(), 1):
            yield Row(number, example_line(values), Candidate.of(values, config.format))

    files = (run.config_path, run.log_path, run.train_path, run.summary_path, run.card_path)
    return Rows(run.path, config.format, config.count, read, files, config.spec.instruction)


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
