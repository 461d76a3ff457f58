"""Where training rows come from: a run, a file of examples, a benchmark's human train split.

Several sources are put together: `csqa runs/csqa` is the human rows and the created ones.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from datacreate.benchmarks import find_benchmark, load_registry, read_split
from datacreate.errors import DatacreateError, TrainingError
from datacreate.finetuning.record import SOFT_LABELS, Arm
from datacreate.finetuning.soft_labels import Verdict, in_head_order
from datacreate.finetuning.task import Question, Task, question_of, task_of
from datacreate.formats.example import Example, Json, canonical_json, find_unsupported_value
from datacreate.formats.infer import infer_format
from datacreate.formats.task_format import TaskFormat, load_format
from datacreate.runs.directory import RunDirectory

MOST_DAMAGED = 0.5
"""A source in which a larger share of rows cannot be used is taken to be the wrong one."""


@dataclass(frozen=True)
class Source:
    """The rows of one source, as they are there."""

    where: str
    condition: str  # human, a strategy, or a file's name
    format: TaskFormat
    rows: Sequence[dict[str, Json]]
    families: Sequence[str]  # of each row: rows of one parent are one family
    benchmark: str | None = None
    generator: str | None = None
    example: str | None = None
    verdicts: Sequence[Verdict | None] | None = None  # of each row of a run; None: none were read


@dataclass(frozen=True)
class TrainingSet:
    """Rows to train on, of one task; `families` as in Source."""

    condition: Arm
    task: Task
    questions: tuple[Question, ...]
    families: tuple[str, ...]
    left_out: dict[str, int]  # why rows of the sources cannot be trained on -> how many
    verdicts_digest: str | None = None  # SHA-256 of the questions' verdicts; None if none has one


def read_source(name_or_path: str, *, verdicts: bool = False) -> Source:
    """A benchmark by its name, else a run directory, with its `verdicts` if asked for, else a JSONL file.

    Raises BenchmarkError, RunError or TrainingError: not there, not finished, empty or not rows.
    """
    path = Path(name_or_path)
    if name_or_path in load_registry():
        return _human(name_or_path)
    if path.is_dir():
        return _run(path, verdicts)
    if path.is_file():
        return _file(path)
    raise TrainingError(
        f"{name_or_path}: no run directory, JSONL file or benchmark (`datacreate benchmarks list`)"
    )


def _human(name: str) -> Source:
    rows = read_split(benchmark := find_benchmark(name), "train")
    families = [canonical_json(row["question"]) for row in rows]  # a question asked twice is one family
    return Source(name, "human", load_format(benchmark.format_name), rows, families, name)


def _run(path: Path, verdicts: bool) -> Source:
    run = RunDirectory(path)
    config = run.read_config()
    spec = config.spec
    found = [(row, commit.parent) for commit in run.commits() for row in commit.accepted]
    if len(found) < config.count:
        raise TrainingError(
            f"{path}: not finished ({len(found)} of {config.count} examples); "
            "run its `datacreate create` again first"
        )
    made = islice(found, config.count)
    rows, families = map(list, zip(*made, strict=True))
    paper = " (paper)" if spec.method == "paper" else ""
    return Source(
        str(path),
        spec.strategy + paper,
        config.format,
        rows,
        families,
        spec.benchmark,
        spec.model,
        Example(spec.example).id,
        list(islice(run.verdicts(), config.count)) if verdicts else None,
    )


def _file(path: Path) -> Source:
    rows: list[dict[str, Json]] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TrainingError(f"{path}: line {number} is not JSON ({error}); fix or remove it") from None
        if not isinstance(row, dict) or (rows and set(row) != set(rows[0])):
            has = f"columns {', '.join(map(str, row))}" if isinstance(row, dict) else "no object"
            wants = f", where line 1 has {', '.join(rows[0])}" if rows else ""
            raise TrainingError(f"{path}: line {number} has {has}{wants}; fix or remove it")
        if flaw := find_unsupported_value(row):
            raise TrainingError(f"{path}: line {number}: {flaw}; fix or remove it")
        rows.append(row)
    if not rows:
        raise TrainingError(f"{path}: no rows; give a file with one JSON object a line")
    return Source(str(path), path.stem, _format_of(rows, path), rows, [str(n) for n in range(len(rows))])


def _format_of(rows: Sequence[dict[str, Json]], path: Path) -> TaskFormat:
    """The format of the first row that has one: an odd row in front says nothing about the rest."""
    first: DatacreateError | None = None
    for row in rows[:20]:
        try:
            return infer_format(Example(row)).format
        except DatacreateError as error:
            first = first or error
    raise TrainingError(f"{path}: line 1: {first}")


def refuse_unverified(sources: Sequence[Source]) -> None:
    """Raise TrainingError if a run has no verdicts, or if there is no run: nothing would be soft.

    Human rows and files beside a verified run are no fault: their rows keep their labels.
    """
    for source in sources:
        if source.verdicts is not None and not any(source.verdicts):
            raise TrainingError(
                f"{source.where}: none of its rows was verified, and soft labels are a verifier's "
                "probabilities; create it with --verifier, or leave --soft-labels out"
            )
    if all(source.verdicts is None for source in sources):
        raise TrainingError(
            f"{sources[0].where}: its rows have labels and no verdicts; --soft-labels needs a run whose rows "
            "were verified: give one, or leave --soft-labels out"
        )


def training_set(
    sources: Sequence[Source],
    *,
    count: int | None = None,
    sample_seed: int = 0,
    condition: str | None = None,
    benchmark: str | None = None,
) -> TrainingSet:
    """The rows of all sources together, or `count` of them drawn by `sample_seed`.

    Draws of one seed are nested: the first 100 are among the first 200. `condition` and `benchmark`
    name what the sources do not; with verdicts the arm has a name of its own. Raises TrainingError
    if there are too few rows, if sources need different heads, if most rows of one cannot be used,
    or if a verdict is none on its row.
    """
    task = task_of(sources[0].format, sources[0].rows, sources[0].where)
    questions: list[Question] = []
    families: list[str] = []
    left_out: Counter[str] = Counter()
    for place, source in enumerate(sources):
        task.refuse_other(task_of(source.format, source.rows, source.where), sources[0].where, source.where)
        reasons: Counter[str] = Counter()
        verdicts = source.verdicts or [None] * len(source.rows)
        for row, family, verdict in zip(source.rows, source.families, verdicts, strict=True):
            question = question_of(row, source.format, task)
            if isinstance(question, str):
                reasons[question] += 1
            elif question.answer is None:
                reasons[_NO_ANSWER[task.head]] += 1
            else:
                questions.append(_judged(question, verdict, source, task))
                families.append(f"{place}:{family}")
        if sum(reasons.values()) > MOST_DAMAGED * len(source.rows):
            why, number = reasons.most_common(1)[0]
            raise TrainingError(
                f"{source.where}: {number} of {len(source.rows)} rows cannot be used: {why}; "
                f"the head has {task.described}"
            )
        left_out += reasons
    if count is not None:
        if count > len(questions):
            raise TrainingError(
                f"{count} rows were asked for and {len(questions)} are there; lower --count or make more"
            )
        drawn = random.Random(sample_seed).sample(range(len(questions)), len(questions))[:count]
        questions, families = [questions[i] for i in drawn], [families[i] for i in drawn]
    named = {source.benchmark for source in sources if source.benchmark}
    called = condition or "+".join(
        sorted({s.condition for s in sources}, key=lambda name: (name != "human", name))
    )
    verdicts_digest = _hashed(q.verdict for q in questions) if any(q.verdict for q in questions) else None
    record = Arm(
        name=called + (SOFT_LABELS if verdicts_digest else ""),
        benchmark=benchmark or (named.pop() if len(named) == 1 else None),
        count=len(questions),
        full=count is None,
        generator="+".join(sorted({s.generator for s in sources if s.generator})) or None,
        example="+".join(sorted({s.example for s in sources if s.example})) or None,
        digest=_digest(questions),
    )
    return TrainingSet(record, task, tuple(questions), tuple(families), dict(left_out), verdicts_digest)


_NO_ANSWER = {
    "multiple_choice": "the answer is not among the options",
    "sequence_classification": "the answer is not one of the labels",
}


def _judged(question: Question, verdict: Verdict | None, source: Source, task: Task) -> Question:
    if verdict is None:
        return question
    ordered = in_head_order(verdict, source.format, task)
    if ordered is None:
        raise TrainingError(
            f"{source.where}: the verdict {' '.join(f'{p:g}' for p in verdict)} is no probability for each "
            f"output of a head with {task.described}; create the run again, or leave --soft-labels out"
        )
    return replace(question, verdict=ordered)


def _digest(questions: Sequence[Question]) -> str:
    return _hashed([q.text, q.context, q.options, q.answer] for q in questions)


def _hashed(lines: Iterable[Json]) -> str:
    hashed = hashlib.sha256()
    for line in lines:
        hashed.update(canonical_json(line).encode())
        hashed.update(b"\n")
    return hashed.hexdigest()
