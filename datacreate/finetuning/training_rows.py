"""Rows to train on: from runs, files and the human train splits of benchmarks.

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
from itertools import chain, islice
from pathlib import Path

from datacreate.benchmarks import find_benchmark, load_registry, read_split
from datacreate.errors import TrainingError, UsageError
from datacreate.finetuning.records import IMPROVED, PAPER_METHOD, SOFT_LABELS, Condition, HeadSpec
from datacreate.formats.example import FieldPath, Json, canonical_json, dotted, field_at, value_at
from datacreate.formats.infer_answers import few_labels
from datacreate.formats.options import FormatOptions
from datacreate.formats.reader import is_row_file
from datacreate.formats.roles import label_text
from datacreate.formats.rules import Rule
from datacreate.formats.task_format import TaskFormat, load_format
from datacreate.formats.validate import RejectReason
from datacreate.runs.directory import RunDirectory
from datacreate.runs.rows import InvalidRow, Row, read_rows
from datacreate.verification.scoring import Probabilities

MAX_SKIPPED = 0.5  # a source is refused if a larger share of its rows cannot be used
SELECTION_FOLDS = 10  # one row in this many is a selection row: it chooses the best checkpoint
MIN_ROWS_TO_SPLIT = 40  # with fewer rows the last checkpoint is kept


@dataclass(frozen=True)
class ClassificationExample:
    """One example as texts. `answer` is the index of the right option or label; None if it has none."""

    text: str
    passage: str | None
    options: tuple[str, ...]  # empty for a fixed label set
    answer: int | None
    probabilities: Probabilities | None = None  # soft label, in the order of the head's outputs


@dataclass(frozen=True)
class Source:
    """All rows of one source."""

    name: str
    condition: str  # human, a strategy, or a file's name
    format: TaskFormat
    rows: Sequence[dict[str, Json]]
    families: Sequence[str]  # of each row; those of one family stay on one side of a split
    benchmark: str | None = None
    generator: str | None = None
    example: str | None = None
    verifier_probabilities: Sequence[Probabilities | None] | None = None  # per row; None: not read
    invalid: Mapping[int, str] = field(default_factory=dict)  # index of a row not valid in the format -> why

    @property
    def is_human(self) -> bool:
        """Whether it is the train split of a benchmark."""
        return self.name == self.benchmark

    def sample(self, count: int, seed: int) -> Source:
        """`count` rows of a source without scores or invalid rows. Raises UsageError if it has fewer."""
        if count > len(self.rows):
            raise UsageError(f"--human-count {count}: {self.name} has {len(self.rows)} train rows; lower it")
        chosen = random.Random(seed).sample(range(len(self.rows)), len(self.rows))[:count]
        rows, families = [self.rows[i] for i in chosen], [self.families[i] for i in chosen]
        return replace(self, rows=rows, families=families)


@dataclass(frozen=True)
class TrainingSet:
    """Examples for one head."""

    condition: Condition
    head: HeadSpec
    examples: tuple[ClassificationExample, ...]
    rows: tuple[Mapping[str, Json], ...]  # of each example
    families: tuple[str, ...]  # of each row: the number of the source and the family there, as `0:FAMILY`
    skipped: dict[str, int]  # why a row cannot be used -> number of rows
    formats: tuple[dict[str, Json], ...]  # files of the sources' formats, with the inputs that the texts have
    probabilities_digest: str | None = None  # SHA-256 of the soft labels


def read_source(
    name_or_path: str, *, verifier_probabilities: bool = False, options: FormatOptions | None = None
) -> Source:
    """A benchmark by name, else a run directory (with its `verifier_probabilities`, if requested), else a file.

    `options` say how to read a file. Raises UsageError, BenchmarkError, RunError or TrainingError if it is missing,
    unfinished, empty or malformed.
    """
    path = Path(name_or_path)
    if name_or_path in load_registry():
        benchmark = find_benchmark(name_or_path)
        rows = read_split(benchmark, "train")
        families = [canonical_json(row["question"]) for row in rows]
        format = load_format(benchmark.format_name)
        return Source(benchmark.name, "human", format, rows, families, benchmark.name)
    if is_row_file(path):
        return read_file(path, options or FormatOptions())
    if path.is_dir():
        return _read_run(path, verifier_probabilities)
    raise UsageError(f"{name_or_path}: no run directory, file or benchmark (`datacreate benchmarks list`)")


def check_distinct(sources: Iterable[str]) -> None:
    """Raise UsageError if a source is given twice, also by another path."""
    known: set[str] = set()
    for source in sources:
        if (name := source if source in load_registry() else os.path.realpath(source)) in known:
            raise UsageError(f"{source.rstrip(os.sep)}: given twice; give it once")
        known.add(name)


def _read_run(path: Path, verifier_probabilities: bool) -> Source:
    run = RunDirectory(path)
    config = run.read_config()
    spec = config.spec
    accepted = list(islice(run.examples(), config.count))
    if len(accepted) < config.count:
        raise TrainingError(
            f"{path}: not finished ({len(accepted)} of {config.count} examples); "
            "run its `datacreate create` again first"
        )
    method = PAPER_METHOD if spec.recipe == "paper" else ""
    scores = list(islice(run.verifier_probabilities(), config.count)) if verifier_probabilities else None
    return Source(
        name=str(path),
        condition=IMPROVED if spec.improves else spec.strategy + method,
        format=config.format,
        rows=accepted,
        families=list(map(str, islice(run.families(), config.count))),
        benchmark=spec.benchmark,
        generator=spec.model,
        example=spec.improves or spec.examples_id,
        verifier_probabilities=scores,
    )


def read_file(path: Path, options: FormatOptions, known: Sequence[TaskFormat] = ()) -> Source:
    """All rows of a file, or of a run; UsageError if one is not JSON, and what `read_rows` raises."""
    read = read_rows(path, options, known)
    rows: list[dict[str, Json]] = []
    first_of_kind: dict[tuple[RejectReason, str], str] = {}
    invalid: dict[int, str] = {}
    for index, row in enumerate(read.read()):
        if isinstance(row, InvalidRow) and row.reason is RejectReason.INVALID_JSON:
            raise UsageError(f"{path}: line {row.number}: {row.detail}; fix or remove it")
        if isinstance(row, InvalidRow):  # a model may still be tested on it
            invalid[index] = first_of_kind.setdefault(row.kind, f"like line {row.number}: {row.detail}")
        rows.append(json.loads(row.line) if isinstance(row, Row) else row.values)
    return Source(str(path), path.stem, read.format, rows, list(map(str, range(len(rows)))), invalid=invalid)


def infer_head(format: TaskFormat, rows: Sequence[Mapping[str, Json]], source: str) -> HeadSpec:
    """The head for rows of a format. Raises UsageError if none fits.

    A format without fixed labels gets the labels that occur in the rows, if there are few.
    """
    if format.head == "multiple_choice" and format.roles.options is not None:
        sizes = Counter(len(o) for o in _values(rows, format.roles.options) if isinstance(o, list))
        options = sizes.most_common(1)[0][0] if sizes else 0  # a row with another number is malformed
        if options < 2:
            raise UsageError(f"{source}: no row with two or more options; give each row a list of them")
        return HeadSpec(head="multiple_choice", names=tuple(map(str, range(options))))
    labels = list(map(label_text, format.labels or ()))
    if len(labels) >= 2:
        return HeadSpec(head="sequence_classification", names=tuple(labels))
    path, roles = format.roles.answer, format.roles
    answers = list(_values(rows, path or ()))
    is_text = roles.turns or roles.tags or roles.rejected or Rule.ANSWER_IN_CONTEXT in format.rules
    if path is None or is_text or any(isinstance(answer, list) for answer in answers):
        raise UsageError(
            f"{source}: no field is recognized as the label of a row, which an encoder learns; "
            "name it and its values with --labels FIELD=a,b,c (of a run: when it is created), or export the rows for "
            "another program"
        )
    labels = sorted(set(map(label_text, answers)))
    if few_labels(len(labels), len(rows)):
        return HeadSpec(head="sequence_classification", names=tuple(labels))
    shown = ",".join(labels) if 2 <= len(labels) <= 10 else "a,b,c"
    raise UsageError(
        f"{source}: the field {dotted(path)} has {len(labels)} different values in {len(rows)} rows, and an encoder "
        f"learns two labels or more of which each occurs in several; if these are the labels, add "
        f"--labels {dotted(path)}={shown}; else give each row one label, or a list of options"
    )


def _values(rows: Sequence[Mapping[str, Json]], path: FieldPath) -> Iterator[Json]:
    for row in rows:
        with suppress(KeyError, TypeError):
            yield field_at(row, path)


def with_varying_inputs(format: TaskFormat, rows: Sequence[Mapping[str, Json]]) -> TaskFormat:
    """The format without inputs that are the same in all rows, such as an instruction: these tell no rows apart."""
    passage, inputs = format.passage_field, format.roles.inputs
    varying = {path for path in inputs if len({canonical_json(value_at(row, path)) for row in rows}) > 1}
    kept = tuple(path for path in inputs if path in {*varying, passage}) if varying - {passage} else inputs
    return replace(format, roles=replace(format.roles, inputs=kept))


def to_classification_example(
    row: Mapping[str, Json], format: TaskFormat, head: HeadSpec
) -> ClassificationExample | str:
    """The texts of a row, or the reason why it cannot be used."""
    try:
        passage = format.passage(row) or None
        text = format.input_text(row)
        answer = label_text(field_at(row, format.roles.answer or ()))
        if not text.strip():
            return "the inputs are empty"
        if not head.is_multiple_choice:
            return ClassificationExample(text, passage, (), name_index(answer, head.names))
        options = tuple(map(str, format.answers.choices(row)))
        right = format.answers.chosen(row)
    except (KeyError, TypeError, IndexError) as error:
        return f"a field is missing ({error})"
    if len(options) != head.classes:
        return f"{len(options)} options, expected {head.classes}"
    return ClassificationExample(text, passage, options, right)


def name_index(answer: str, names: Sequence[str]) -> int | None:
    """The index of an answer: exact spelling first, then ignoring case and outer spaces."""
    if answer in names:
        return names.index(answer)
    folded = [name.casefold().strip() for name in names]
    wanted = answer.casefold().strip()
    return folded.index(wanted) if wanted in folded else None


def training_set(
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
    different heads, if most rows of one cannot be used, or if probabilities do not fit their row.
    """
    head = infer_head(sources[0].format, sources[0].rows, sources[0].name)
    kept: list[tuple[ClassificationExample, Mapping[str, Json], str]] = []  # with row and family
    formats: list[dict[str, Json]] = []
    skipped: Counter[str] = Counter()
    for number, source in enumerate(sources):
        head.check_same(infer_head(source.format, source.rows, source.name), sources[0].name, source.name)
        alike = (other.rows for other in sources if other.format.roles.inputs == source.format.roles.inputs)
        format = with_varying_inputs(source.format, list(chain.from_iterable(alike)))
        if (document := format.document()) not in formats:
            formats.append(document)
        reasons: Counter[str] = Counter()
        soft_labels = source.verifier_probabilities or [None] * len(source.rows)
        for index, (row, family, probabilities) in enumerate(
            zip(source.rows, source.families, soft_labels, strict=True)
        ):
            example = to_classification_example(row, format, head)
            if isinstance(example, str):
                reasons[example] += 1
            elif example.answer is None:
                set_ = "among the options" if head.is_multiple_choice else "one of the labels"
                reasons[f"the answer is not {set_}"] += 1
            elif index in source.invalid:
                reasons[source.invalid[index]] += 1
            else:
                if probabilities is not None:
                    example = replace(example, probabilities=soft_label(probabilities, source, head))
                kept.append((example, row, f"{number}:{family}"))
        if reasons.total() > MAX_SKIPPED * len(source.rows):
            why, most = reasons.most_common(1)[0]
            often = f" ({most} of them)" if most < reasons.total() else ""
            raise UsageError(
                f"{source.name}: {reasons.total()} of {len(source.rows)} rows cannot be used: {why}{often}; "
                f"the model learns {head.description}; repair or remove these rows"
            )
        skipped += reasons
    if count is not None:
        if count > len(kept):
            raise UsageError(f"--count {count} but only {len(kept)} rows; lower --count or add sources")
        kept = random.Random(sample_seed).sample(kept, len(kept))[:count]
    examples = tuple(example for example, _, _ in kept)
    benchmarks = {source.benchmark for source in sources if source.benchmark}
    names = sorted({source.condition for source in sources}, key=lambda name: (name != "human", name))
    soft = any(example.probabilities for example in examples)
    record = Condition(
        name=(condition or "+".join(names)) + (SOFT_LABELS if soft else ""),
        benchmark=benchmark or (benchmarks.pop() if len(benchmarks) == 1 else None),
        count=len(examples),
        full=count is None,
        generator="+".join(sorted({s.generator for s in sources if s.generator})) or None,
        example="+".join(sorted({s.example for s in sources if s.example})) or None,
        digest=json_sha256([q.text, q.passage, q.options, q.answer] for q in examples),
    )
    digest = json_sha256(q.probabilities for q in examples) if soft else None
    rows, families = tuple(row for _, row, _ in kept), tuple(family for _, _, family in kept)
    return TrainingSet(record, head, examples, rows, families, dict(skipped), tuple(formats), digest)


def json_sha256(lines: Iterable[Json]) -> str:
    """The SHA-256 of JSON values, a line each."""
    return hashlib.sha256("".join(canonical_json(line) + "\n" for line in lines).encode()).hexdigest()


def soft_label(probabilities: Probabilities, source: Source, head: HeadSpec) -> Probabilities:
    """The verifier's probabilities in the order of the head's outputs, normalized to sum 1.

    Options are in the row's order, which is the head's; labels are matched by text. Raises TrainingError
    if their number is wrong, or they are no probabilities.
    """
    labels = not head.is_multiple_choice
    names = list(map(label_text, source.format.labels or ())) if labels else list(head.names)
    total = math.fsum(probabilities)
    if len(probabilities) != len(names) or set(names) != set(head.names) or not 0.99 <= total <= 1.01:
        raise TrainingError(
            f"{source.name}: the probabilities {' '.join(f'{p:g}' for p in probabilities)} are not one for each "
            f"output of a head with {head.description}; create the run again, or drop --soft-labels"
        )
    by_name = dict(zip(names, probabilities, strict=True))
    return tuple(by_name[name] / total for name in head.names)


def held_out_splits(
    examples: Sequence[ClassificationExample], families: Sequence[str], head: HeadSpec, folds: int
) -> list[tuple[list[int], list[int]]]:
    """Indices of training and held-out rows, `folds` times: each row is held out once.

    Stratified by label, if no label is rare; the position of an option carries no meaning. Rows of one family stay
    together, since children resemble their siblings; those of a family larger than half a fold are split individually.
    Raises ValueError if there are fewer rows than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    sizes, total = Counter(families), len(examples)
    groups = [each if 2 * folds * sizes[each] <= total else f"{each} {i}" for i, each in enumerate(families)]
    labels = [example.answer or 0 for example in examples]
    if head.is_multiple_choice or min(Counter(labels).values()) < folds:
        labels = [0] * total
    if len(set(groups)) == total:  # much faster, and the same without shared families
        splits = StratifiedKFold(folds, shuffle=True, random_state=0).split(groups, labels)
    else:
        splits = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(groups, labels, groups)
    return [(trained.tolist(), held_out.tolist()) for trained, held_out in splits]
