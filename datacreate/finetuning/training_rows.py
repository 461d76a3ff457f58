"""Reads rows from sources (a run, a file, or a split of a benchmark), as examples of a classification task.

Several sources are concatenated: `csqa runs/csqa` is the human rows and the created ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice, repeat
from pathlib import Path

from datacreate.benchmarks import Benchmark, find_benchmark, load_registry, read_split
from datacreate.errors import TrainingError, UsageError
from datacreate.finetuning.records import HUMAN, IMPROVED, PAPER_METHOD, SOFT_LABELS, Condition, HeadSpec
from datacreate.formats import FormatOptions
from datacreate.formats.example import FieldPath, Json, canonical_json, dotted, field_at, shorten, value_at
from datacreate.formats.infer_labels import few_labels, labels_option
from datacreate.formats.reject import RejectReason
from datacreate.formats.roles import label_text
from datacreate.formats.row_file import is_row_file
from datacreate.formats.rules import Rule
from datacreate.formats.task_format import TaskFormat, load_format
from datacreate.messages import EMPTY_PATH
from datacreate.runs.directory import RunDirectory
from datacreate.runs.validated_rows import ValidRow, read_rows
from datacreate.verification import Probabilities

MAX_SKIPPED = 0.5  # a source is refused if a larger share of its rows cannot be used


@dataclass(frozen=True)
class SourceRow:
    """A row of a source."""

    values: Mapping[str, Json]
    family: str  # rows of one family stay on one side of a split
    probabilities: Probabilities | None = None  # of the verifier, if they are read
    problem: str = ""  # why it is not valid in the format; a model may still be tested on it


@dataclass(frozen=True)
class Source:
    """The rows of a run, of a file, or of a split of a benchmark."""

    name: str
    condition: str  # human, a strategy, or a file's name with the beginning of its rows' hash
    format: TaskFormat
    rows: Sequence[SourceRow]
    benchmark: str | None = None
    is_human: bool = False  # whether it is a split of a benchmark
    is_sample: bool = False  # whether the source has more rows
    generator: str | None = None
    example: str | None = None
    settings: tuple[str, ...] | None = None  # of a run; see `Condition`

    @property
    def values(self) -> list[Mapping[str, Json]]:
        return [row.values for row in self.rows]

    def field(self, path: FieldPath) -> Iterator[Json]:
        """The values of a field in the rows that have it."""
        for row in self.rows:
            with suppress(KeyError, TypeError):
                yield field_at(row.values, path)

    def sample(self, count: int, seed: int) -> Source:
        """The human source with `count` of its rows. Raises UsageError if it has fewer."""
        if count > len(self.rows):
            raise UsageError(f"--human-count {count}: {self.name} has {len(self.rows)} train rows; lower it")
        chosen = random.Random(seed).sample(self.rows, len(self.rows))[:count]
        return replace(self, rows=chosen, is_sample=count < len(self.rows))


def read_source(
    name_or_path: str, *, with_verifier_probabilities: bool = False, options: FormatOptions | None = None
) -> Source:
    """Read the rows of a benchmark (given by its name), a run directory or a file.

    `with_verifier_probabilities` also reads those of a run; `options` say how to read a file. Raises UsageError,
    BenchmarkError, RunError or TrainingError if the source is missing, unfinished, empty or malformed.
    """
    if not name_or_path:
        raise UsageError(EMPTY_PATH)
    path = Path(name_or_path)
    if name_or_path in load_registry():
        return read_benchmark(name_or_path, "train")
    if is_row_file(path):
        return read_file(path, options or FormatOptions())
    if path.is_dir():
        return _read_run(path, with_verifier_probabilities=with_verifier_probabilities)
    raise UsageError(f"{name_or_path}: no run directory, file or benchmark (`datacreate benchmarks list`)")


def read_benchmark(name: str, split: str) -> Source:
    """The human rows of one split of a benchmark. Raises BenchmarkError if it is not imported."""
    benchmark = find_benchmark(name)
    rows = [SourceRow(row, canonical_json(row["question"])) for row in read_split(benchmark, split)]
    return Source(name, HUMAN, load_format(benchmark.format_name), rows, name, is_human=True)


def check_distinct(sources: Iterable[str]) -> None:
    """Raise UsageError if a source is given twice, even by different paths."""
    seen: set[str] = set()
    for source in sources:
        name = source if source in load_registry() else os.path.realpath(source)
        if name in seen:
            raise UsageError(f"{source.rstrip(os.sep)}: given twice; give it once")
        seen.add(name)


def _read_run(path: Path, *, with_verifier_probabilities: bool) -> Source:
    run = RunDirectory(path)
    config = run.read_config()
    spec = config.spec
    probabilities = run.verifier_probabilities() if with_verifier_probabilities else repeat(None)
    columns = zip(run.examples(), map(str, run.families()), probabilities, strict=False)
    rows = [SourceRow(*row) for row in islice(columns, config.count)]
    if len(rows) < config.count:
        raise TrainingError(
            f"{path}: not finished ({len(rows)} of {config.count} examples); run its `datacreate create` again first"
        )
    method = PAPER_METHOD if spec.recipe == "paper" else ""
    return Source(
        name=str(path),
        condition=IMPROVED if spec.improves else spec.strategy + method,
        format=config.format,
        rows=rows,
        benchmark=spec.benchmark,
        generator=spec.model,
        example=spec.improves or spec.examples_id,
        settings=spec.compared_settings,
    )


def read_file(path: Path, options: FormatOptions, known_formats: Sequence[TaskFormat] = ()) -> Source:
    """Read all rows of a file or of a run. Raises UsageError if a row is not JSON, and what `read_rows` raises.

    Rows with equal inputs are one family. Rows that have the fields of one of the `known_formats` are read in that
    format.
    """
    reader = read_rows(path, options, known_formats)
    rows: list[SourceRow] = []
    first_problems: dict[tuple[RejectReason, str], str] = {}
    for row in reader.read():
        if isinstance(row, ValidRow):
            rows.append(SourceRow(json.loads(row.line), row.candidate.exact_key))
        elif row.reason is RejectReason.INVALID_JSON:
            raise UsageError(f"{path}: line {row.number}: {row.detail}; fix or remove it")
        else:
            problem = first_problems.setdefault(row.problem_key, f"like line {row.number}: {row.detail}")
            rows.append(SourceRow(row.values, str(len(rows)), problem=problem))
    digest = json_sha256(row.values for row in rows)  # files of one name may have different rows
    name = path.stem.replace("+", "-")  # a `+` would make it the name of a mixture
    return Source(str(path), f"{name} ({digest[:8]})", reader.format, rows)


@dataclass(frozen=True)
class ClassificationExample:
    """An example as texts. `answer_index` is that of the right option or label; None if the row has no such answer."""

    text: str
    passage: str | None
    options: tuple[str, ...]  # empty for a fixed label set
    answer_index: int | None
    probabilities: Probabilities | None = None  # soft label, in the order of the head's outputs
    values: Mapping[str, Json] = field(default_factory=dict, compare=False)  # the row
    family: str = ""  # of a training row: the number of the source and the family there, as `0:FAMILY`

    @property
    def inputs(self) -> tuple[str, str | None, tuple[str, ...]]:
        return self.text, self.passage, self.options


@dataclass(frozen=True)
class TrainingSet:
    """The examples of a training, all for one classification head."""

    condition: Condition
    head: HeadSpec
    examples: tuple[ClassificationExample, ...]
    skipped: dict[str, int]  # why a row cannot be used -> number of rows
    formats: tuple[dict[str, Json], ...]  # files of the sources' formats, with the inputs that the texts have
    probabilities_digest: str | None = None  # SHA-256 of the soft labels


def infer_head(source: Source) -> HeadSpec:
    """The head for the rows of a source. Raises UsageError if none fits.

    A format without fixed labels gets the labels that occur in the rows, if there are few.
    """
    task_format = source.format
    if task_format.head == "multiple_choice" and task_format.roles.options is not None:
        sizes = Counter(len(value) for value in source.field(task_format.roles.options) if isinstance(value, list))
        count = sizes.most_common(1)[0][0] if sizes else 0  # a row with another count is malformed
        if count < 2:
            raise UsageError(f"{source.name}: no row with two or more options; give each row a list of them")
        return HeadSpec(head="multiple_choice", names=tuple(map(str, range(count))))
    labels = list(map(label_text, task_format.labels or ()))
    if len(labels) < 2:
        labels = _labels_in_rows(source)
    return HeadSpec(head="sequence_classification", names=tuple(labels))


def benchmark_head(benchmark: Benchmark) -> HeadSpec:
    """The head for the rows of a benchmark, which need not be imported."""
    names = map(str, range(benchmark.options))
    if benchmark.head == "sequence_classification":
        names = map(label_text, load_format(benchmark.format_name).labels or ())
    return HeadSpec(head=benchmark.head, names=tuple(names))


def _labels_in_rows(source: Source) -> list[str]:
    """The different answers of the rows. Raises UsageError if they are not labels."""
    path, roles, total = source.format.roles.answer, source.format.roles, len(source.rows)
    answers = [answer for answer in source.field(path or ()) if answer is not None]
    is_text = roles.turns or roles.tags or roles.rejected or Rule.ANSWER_IN_CONTEXT in source.format.rules
    if path is None or is_text or any(isinstance(answer, list) for answer in answers):
        raise UsageError(
            f"{source.name}: no field is recognized as the label of a row, which an encoder learns; "
            "name it and its values with --labels FIELD=a,b,c (of a run: when it is created), or export the rows for "
            "another program"
        )
    labels = sorted(set(map(label_text, answers)))
    if few_labels(len(labels), total):
        return labels
    shown = labels if 2 <= len(labels) <= 10 else ["a", "b", "c"]
    raise UsageError(
        f"{source.name}: the field {dotted(path)} has {len(labels)} different values in {total} rows, and an encoder "
        f"learns two labels or more of which each occurs in several; if these are the labels, add "
        f"{labels_option(dotted(path), shown)}; else give each row one label, or a list of options"
    )


def row_label(row: Mapping[str, Json], task_format: TaskFormat) -> str:
    """The right answer of a row as a text; "" for null, unless that is a label. KeyError or TypeError without one."""
    answer = field_at(row, task_format.roles.answer or ())
    return "" if answer is None and None not in (task_format.labels or ()) else label_text(answer)


def to_classification_example(
    row: Mapping[str, Json], task_format: TaskFormat, head: HeadSpec
) -> ClassificationExample | str:
    """The texts of a row, or the reason why it cannot be used."""
    try:
        passage = task_format.passage(row) or None
        text = task_format.text_for_model(row)
        answer = row_label(row, task_format)
        if not text.strip():
            return "the inputs are empty"
        if not head.is_multiple_choice:
            return ClassificationExample(text, passage, (), head.index(answer), values=row)
        options = tuple(map(str, task_format.answers.choices(row)))
        right_option = task_format.answers.right_index(row)
    except (KeyError, TypeError, IndexError) as error:
        return f"a field is missing ({error})"
    if len(options) != head.classes:
        return f"{len(options)} options, expected {head.classes}"
    return ClassificationExample(text, passage, options, right_option, values=row)


def make_training_set(
    sources: Sequence[Source],
    *,
    count: int | None = None,
    sample_seed: int = 0,
    condition: str | None = None,
    benchmark: str | None = None,
) -> TrainingSet:
    """The rows of all sources, or a sample of `count` rows.

    Samples of one seed are nested: the first 100 are among the first 200. `condition` and `benchmark`
    override those of the sources. Raises UsageError if there are too few rows, if sources need
    different heads, or if most rows of one cannot be used.
    """
    first = sources[0]
    head = infer_head(first)
    examples: list[ClassificationExample] = []
    formats: list[dict[str, Json]] = []
    skipped: Counter[str] = Counter()
    for number, source in enumerate(sources):
        head.check_same(infer_head(source), first.name, source.name)
        alike = (other.values for other in sources if other.format.roles.inputs == source.format.roles.inputs)
        task_format = with_varying_inputs(source.format, list(chain.from_iterable(alike)))
        if (document := task_format.document()) not in formats:
            formats.append(document)
        usable, skipped_here = _usable_examples(source, number, task_format, head)
        examples += usable
        skipped += skipped_here
    if count is not None:
        if count > len(examples):
            raise UsageError(f"--count {count} but only {len(examples)} rows; lower --count or add sources")
        examples = random.Random(sample_seed).sample(examples, len(examples))[:count]
    has_soft_labels = any(example.probabilities for example in examples)
    benchmarks = {source.benchmark for source in sources if source.benchmark}
    settings = [source.settings for source in sources if source.settings is not None]
    return TrainingSet(
        condition=Condition(
            name=(condition or _joined(source.condition for source in sources)) + SOFT_LABELS * has_soft_labels,
            benchmark=benchmark or (benchmarks.pop() if len(benchmarks) == 1 else None),
            count=len(examples),
            full=count is None and not any(source.is_sample for source in sources),
            generator=_joined(source.generator for source in sources) or None,
            example=_joined(source.example for source in sources) or None,
            digest=rows_digest(examples),
            settings=tuple(sorted({text for each in settings for text in each})) if settings else None,
        ),
        head=head,
        examples=tuple(examples),
        skipped=dict(skipped),
        formats=tuple(formats),
        probabilities_digest=json_sha256(e.probabilities for e in examples) if has_soft_labels else None,
    )


def _joined(names: Iterable[str | None]) -> str:
    """The different names, joined as in `human+tree`, human rows first; empty if there is none."""
    return "+".join(sorted({name for name in names if name}, key=lambda name: (name != HUMAN, name)))


def with_varying_inputs(task_format: TaskFormat, rows: Sequence[Mapping[str, Json]]) -> TaskFormat:
    """The format without inputs that are the same in all rows, such as an instruction: these tell no rows apart."""
    passage, inputs = task_format.passage_field, task_format.roles.inputs
    varying = {path for path in inputs if len({canonical_json(value_at(row, path)) for row in rows}) > 1}
    if not varying - {passage}:
        return task_format
    kept = tuple(path for path in inputs if path in varying or path == passage)
    return replace(task_format, roles=replace(task_format.roles, inputs=kept))


def _usable_examples(
    source: Source, number: int, task_format: TaskFormat, head: HeadSpec
) -> tuple[list[ClassificationExample], Counter[str]]:
    """The usable rows of a source; the number of others by reason. Raises UsageError if these are too many."""
    usable: list[ClassificationExample] = []
    skipped: Counter[str] = Counter()
    for row in source.rows:
        example = to_classification_example(row.values, task_format, head)
        if isinstance(example, str):
            skipped[example] += 1
        elif example.answer_index is None:
            place = "among the options" if head.is_multiple_choice else "one of the labels"
            skipped[f"the answer is not {place}"] += 1
        elif row.problem:
            skipped[row.problem] += 1
        else:
            example = replace(example, family=f"{number}:{row.family}")
            if row.probabilities is not None:
                example = replace(example, probabilities=soft_label(row.probabilities, source, head))
            usable.append(example)
    if skipped.total() > MAX_SKIPPED * len(source.rows):
        reason, most = skipped.most_common(1)[0]
        often = f" ({most} of them)" if most < skipped.total() else ""
        raise UsageError(
            f"{source.name}: {skipped.total()} of {len(source.rows)} rows cannot be used: {reason}{often}; "
            f"the model learns {head.description}; repair or remove these rows"
        )
    return usable, skipped


def rows_digest(examples: Iterable[ClassificationExample]) -> str:
    """The SHA-256 of what a model learns from some rows, in their order."""
    return json_sha256([e.text, e.passage, e.options, e.answer_index] for e in examples)


def json_sha256(lines: Iterable[Json]) -> str:
    """The SHA-256 of JSON values, a line each."""
    return hashlib.sha256("".join(canonical_json(line) + "\n" for line in lines).encode()).hexdigest()


def soft_label(probabilities: Probabilities, source: Source, head: HeadSpec) -> Probabilities:
    """The verifier's probabilities in the order of the head's outputs, normalized to sum 1.

    Options are in the row's order, which is the head's; labels are matched by text. Raises TrainingError if they do not
    fit.
    """
    labels = tuple(map(label_text, source.format.labels or ()))
    names = head.names if head.is_multiple_choice else labels
    total = math.fsum(probabilities)  # they are rounded
    if len(probabilities) != len(names) or not 0 < total < math.inf:
        shown = shorten(", ".join(map(str, probabilities)), 80)
        raise TrainingError(
            f"{source.name}: the verifier's probabilities of a row ({shown}) do not fit {head.description}; "
            "restore the run from a copy, or create it again"
        )
    by_name = dict(zip(names, probabilities, strict=True))
    return tuple(by_name[name] / total for name in head.names)
