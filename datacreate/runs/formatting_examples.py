"""The formatting examples of a run and their format: from files, values or a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from datacreate.benchmarks import find_benchmark, formatting_examples
from datacreate.errors import ExampleError, UsageError
from datacreate.formats import FormatOptions
from datacreate.formats.candidate import find_invalid_character
from datacreate.formats.example import Example, Json, find_unsupported_value
from datacreate.formats.infer import InferredFormat, declare_format, infer_format
from datacreate.formats.infer_rows import infer_from_examples
from datacreate.formats.row_file import MAX_EXAMPLES, RowFile
from datacreate.formats.schema_utils import Schema
from datacreate.formats.task_format import load_format
from datacreate.runs.config import CreateConfig
from datacreate.selection.strategies import find_strategy


def examples_and_format(config: CreateConfig) -> tuple[tuple[Example, ...], InferredFormat]:
    """The formatting examples of a run and their format: from files or a benchmark; none with an instruction only.

    Raises what `read_examples` and `declare_format` raise, BenchmarkError, and UsageError if there are too few for the
    prompts.
    """
    if config.sources:
        examples, inferred = read_examples(config.sources, config, config.example_limit)
    elif config.benchmark:
        benchmark = find_benchmark(config.benchmark)
        seed = config.seed if config.example_seed is None else config.example_seed
        drawn, note = formatting_examples(benchmark, seed, config.examples)
        examples = tuple(map(Example, drawn))
        inferred = infer_format(examples, FormatOptions(format=benchmark.format_name))
        inferred = replace(inferred, notes=(note, *inferred.notes))
    else:
        examples, inferred = (), declare_format(config)
    count = len(examples)
    if config.shots > max(1, count) and find_strategy(config.strategy).queue == "root":
        raise UsageError(
            f"--shots {config.shots}: --strategy {config.strategy} shows only formatting examples, and there are "
            f"{count}; give more with --example, or use another strategy"
        )
    return examples, inferred


def read_examples(
    sources: Sequence[Path | Mapping[str, Json]], options: FormatOptions, limit: int | None = None
) -> tuple[tuple[Example, ...], InferredFormat]:
    """The formatting examples of a run, without repeated ones, and their format.

    A source is a file, of which at most `limit` rows are taken, or the values of an example. Raises ExampleError for an
    example that cannot be read or does not fit; and what `infer_format` raises.
    """
    schema = load_format(options.format).schema if options.format else options.range_schema
    read: list[Example] = []
    for number, source in enumerate(sources, 1):
        if isinstance(source, Path):
            read += examples_in_file(source, limit, schema)
        else:
            read.append(Example(source, f"example {number}" if len(sources) > 1 else ""))
    different: dict[str, Example] = {}
    repeated: list[str] = []
    for example in read:
        if message := find_unsupported_value(example.values):
            raise ExampleError(f"{example.where or 'the example: '}{message}; fix the example")
        if (first := different.setdefault(example.id, example)) is not example:
            repeated.append(f"{example.where}the same as {first.origin}; left out")
    if len(read) > MAX_EXAMPLES:
        raise ExampleError(
            f"--example: more than {MAX_EXAMPLES} rows, and a few are enough; take the first with --example-limit K"
        )
    examples, inferred = infer_from_examples(list(different.values()), options)
    for example in examples:
        if message := find_invalid_character(example.values, inferred.format):
            raise ExampleError(f"{example.where}{message}; remove it")
    return examples, replace(inferred, notes=(*inferred.notes, *repeated))


def examples_in_file(path: Path, limit: int | None = None, schema: Schema | None = None) -> list[Example]:
    """The formatting examples in a file: its first `limit` rows, or at most one more than MAX_EXAMPLES.

    `schema` as for `RowFile.read`. Raises ExampleError, naming the line.
    """
    try:
        file = RowFile(path)
        rows = list(islice(file.read(schema), limit or MAX_EXAMPLES + 1))
    except UsageError as error:
        raise ExampleError(str(error)) from None
    for row in rows:
        if row.error:
            advice = "repair the row" if file.values_are_text else "write each example as one JSON object"
            raise ExampleError(f"{path}: line {row.number}: {row.error}; {advice}")
        if not row.values:
            raise ExampleError(f"{path}: line {row.number}: the object has no fields; fill in an example")
    return [Example(row.values, f"{path}: line {row.number}" if len(rows) > 1 else str(path)) for row in rows]
