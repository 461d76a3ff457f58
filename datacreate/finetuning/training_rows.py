"""Rows of one or several sources -> examples of a classification task; splits of them.

Several sources are concatenated: `csqa runs/csqa` is the human rows and the created ones.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple

from datacreate.errors import TrainingError, UsageError
from datacreate.finetuning.records import SOFT_LABELS, Condition, HeadSpec
from datacreate.finetuning.sources import Source
from datacreate.formats.example import FieldPath, Json, canonical_json, dotted, field_at, value_at
from datacreate.formats.infer_answers import few_labels
from datacreate.formats.roles import label_text
from datacreate.formats.rules import Rule
from datacreate.formats.task_format import TaskFormat
from datacreate.verification.scoring import Probabilities

MAX_SKIPPED = 0.5  # a source is refused if a larger share of its rows cannot be used
SELECTION_FOLDS = 10  # one row in this many is a selection row: it chooses the best checkpoint
MIN_ROWS_TO_SPLIT = 40  # with fewer rows the last checkpoint is kept
_MIN_SUM, _MAX_SUM = 0.99, 1.01  # of the probabilities of a soft label, which are rounded


@dataclass(frozen=True)
class ClassificationExample:
    """An example as texts. `answer` is the index of the right option or label; None if the row has no such answer."""

    text: str
    passage: str | None
    options: tuple[str, ...]  # empty for a fixed label set
    answer: int | None
    probabilities: Probabilities | None = None  # soft label, in the order of the head's outputs
    values: Mapping[str, Json] = field(default_factory=dict, compare=False)  # the row
    family: str = ""  # of a training row: the number of the source and the family there, as `0:FAMILY`


@dataclass(frozen=True)
class TrainingSet:
    """Examples for one head."""

    condition: Condition
    head: HeadSpec
    examples: tuple[ClassificationExample, ...]
    skipped: dict[str, int]  # why a row cannot be used -> number of rows
    formats: tuple[dict[str, Json], ...]  # files of the sources' formats, with the inputs that the texts have
    probabilities_digest: str | None = None  # SHA-256 of the soft labels


def infer_head(format: TaskFormat, rows: Sequence[Mapping[str, Json]], source: str) -> HeadSpec:
    """The head for rows of a format. Raises UsageError, which names the `source`, if none fits.

    A format without fixed labels gets the labels that occur in the rows, if there are few.
    """
    if format.head == "multiple_choice" and format.roles.options is not None:
        lists = [value for value in _values(rows, format.roles.options) if isinstance(value, list)]
        sizes = Counter(map(len, lists))
        number = sizes.most_common(1)[0][0] if sizes else 0  # a row with another number is malformed
        if number < 2:
            raise UsageError(f"{source}: no row with two or more options; give each row a list of them")
        return HeadSpec(head="multiple_choice", names=tuple(map(str, range(number))))
    labels = list(map(label_text, format.labels or ()))
    if len(labels) < 2:
        labels = _labels_in_rows(format, rows, source)
    return HeadSpec(head="sequence_classification", names=tuple(labels))


def _labels_in_rows(format: TaskFormat, rows: Sequence[Mapping[str, Json]], source: str) -> list[str]:
    """The different answers of the rows. Raises UsageError if they are no labels."""
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
        return labels
    shown = ",".join(labels) if 2 <= len(labels) <= 10 else "a,b,c"
    raise UsageError(
        f"{source}: the field {dotted(path)} has {len(labels)} different values in {len(rows)} rows, and an encoder "
        f"learns two labels or more of which each occurs in several; if these are the labels, add "
        f"--labels {dotted(path)}={shown}; else give each row one label, or a list of options"
    )


def _values(rows: Sequence[Mapping[str, Json]], path: FieldPath) -> Iterator[Json]:
    """The values of a field in the rows that have it."""
    for row in rows:
        with suppress(KeyError, TypeError):
            yield field_at(row, path)


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
            return ClassificationExample(text, passage, (), name_index(answer, head.names), values=row)
        options = tuple(map(str, format.answers.choices(row)))
        right_option = format.answers.chosen(row)
    except (KeyError, TypeError, IndexError) as error:
        return f"a field is missing ({error})"
    if len(options) != head.classes:
        return f"{len(options)} options, expected {head.classes}"
    return ClassificationExample(text, passage, options, right_option, values=row)


def name_index(answer: str, names: Sequence[str]) -> int | None:
    """The index of an answer: exact spelling first, then ignoring case and outer spaces."""
    if answer in names:
        return names.index(answer)
    folded_names = [name.casefold().strip() for name in names]
    folded_answer = answer.casefold().strip()
    return folded_names.index(folded_answer) if folded_answer in folded_names else None


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
    first = sources[0]
    head = infer_head(first.format, first.values, first.name)
    examples: list[ClassificationExample] = []
    formats: list[dict[str, Json]] = []
    skipped: Counter[str] = Counter()
    for number, source in enumerate(sources):
        head.check_same(infer_head(source.format, source.values, source.name), first.name, source.name)
        alike = (other.values for other in sources if other.format.roles.inputs == source.format.roles.inputs)
        format = _with_varying_inputs(source.format, list(chain.from_iterable(alike)))
        if (document := format.document()) not in formats:
            formats.append(document)
        usable, skipped_here = _usable_examples(source, number, format, head)
        examples += usable
        skipped += skipped_here
    if count is not None:
        if count > len(examples):
            raise UsageError(f"--count {count} but only {len(examples)} rows; lower --count or add sources")
        examples = random.Random(sample_seed).sample(examples, len(examples))[:count]
    has_soft_labels = any(example.probabilities for example in examples)
    benchmarks = {source.benchmark for source in sources if source.benchmark}
    return TrainingSet(
        condition=Condition(
            name=(condition or _joined(source.condition for source in sources)) + SOFT_LABELS * has_soft_labels,
            benchmark=benchmark or (benchmarks.pop() if len(benchmarks) == 1 else None),
            count=len(examples),
            full=count is None and not any(source.is_sample for source in sources),
            generator=_joined(source.generator for source in sources) or None,
            example=_joined(source.example for source in sources) or None,
            digest=json_sha256([e.text, e.passage, e.options, e.answer] for e in examples),
        ),
        head=head,
        examples=tuple(examples),
        skipped=dict(skipped),
        formats=tuple(formats),
        probabilities_digest=json_sha256(e.probabilities for e in examples) if has_soft_labels else None,
    )


def _joined(names: Iterable[str | None]) -> str:
    """The different names as in `human+tree`, human rows first; empty if there is none."""
    return "+".join(sorted({name for name in names if name}, key=lambda name: (name != "human", name)))


def _with_varying_inputs(format: TaskFormat, rows: Sequence[Mapping[str, Json]]) -> TaskFormat:
    """The format without inputs that are the same in all rows, such as an instruction: these tell no rows apart."""
    passage, inputs = format.passage_field, format.roles.inputs
    varying = {path for path in inputs if len({canonical_json(value_at(row, path)) for row in rows}) > 1}
    if not varying - {passage}:
        return format
    kept = tuple(path for path in inputs if path in varying or path == passage)
    return replace(format, roles=replace(format.roles, inputs=kept))


def _usable_examples(
    source: Source, number: int, format: TaskFormat, head: HeadSpec
) -> tuple[list[ClassificationExample], Counter[str]]:
    """The usable rows of a source; the number of others by reason. Raises UsageError if these are too many."""
    usable: list[ClassificationExample] = []
    skipped: Counter[str] = Counter()
    for row in source.rows:
        example = to_classification_example(row.values, format, head)
        if isinstance(example, str):
            skipped[example] += 1
        elif example.answer is None:
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


def json_sha256(lines: Iterable[Json]) -> str:
    """The SHA-256 of JSON values, a line each."""
    return hashlib.sha256("".join(canonical_json(line) + "\n" for line in lines).encode()).hexdigest()


def soft_label(probabilities: Probabilities, source: Source, head: HeadSpec) -> Probabilities:
    """The verifier's probabilities in the order of the head's outputs, normalized to sum 1.

    Options are in the row's order, which is the head's; labels are matched by text. Raises TrainingError
    if their number is wrong, or they are no probabilities.
    """
    labels = map(label_text, source.format.labels or ())
    names = list(head.names if head.is_multiple_choice else labels)
    total = math.fsum(probabilities)
    is_distribution = _MIN_SUM <= total <= _MAX_SUM
    if len(probabilities) != len(names) or set(names) != set(head.names) or not is_distribution:
        raise TrainingError(
            f"{source.name}: the probabilities {' '.join(f'{p:g}' for p in probabilities)} are not one for each "
            f"output of a head with {head.description}; create the run again, or drop --soft-labels"
        )
    by_name = dict(zip(names, probabilities, strict=True))
    return tuple(by_name[name] / total for name in head.names)


class HeldOutSplit(NamedTuple):
    """The indices of the rows that a model is trained on, and of those that it is not."""

    trained: list[int]
    held_out: list[int]


def held_out_splits(examples: Sequence[ClassificationExample], head: HeadSpec, folds: int) -> list[HeldOutSplit]:
    """Splits of the rows into `folds` parts: each part is held out once.

    Stratified by label, if no label is rare; the position of an option carries no meaning. Rows of one family stay
    together, since children resemble their siblings; those of a family larger than half a fold are split individually.
    Raises ValueError if there are fewer rows than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    family_sizes, total = Counter(example.family for example in examples), len(examples)
    groups = [
        example.family if 2 * folds * family_sizes[example.family] <= total else f"{example.family} {row}"
        for row, example in enumerate(examples)
    ]
    labels = [example.answer or 0 for example in examples]
    if head.is_multiple_choice or min(Counter(labels).values()) < folds:
        labels = [0] * total
    if len(set(groups)) == total:  # much faster, and the same without shared families
        splits = StratifiedKFold(folds, shuffle=True, random_state=0).split(groups, labels)
    else:
        splits = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(groups, labels, groups)
    return [HeldOutSplit(trained.tolist(), held_out.tolist()) for trained, held_out in splits]
