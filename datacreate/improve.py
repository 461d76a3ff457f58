"""An error-driven round: students show which rows of a run are hard, and a second run starts from those.

No human labels are needed: a student judges only rows that it was not trained on (cross-fitting). As in S3 (Wang et
al., 2023) and LLM2LLM (Lee et al., 2024), the hard rows are then the formatting examples of an ordinary run.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from pydantic import Field

from datacreate.errors import TrainingError, UsageError
from datacreate.files import replace_file
from datacreate.finetuning.encoder import OnNamedStep
from datacreate.finetuning.evaluate import held_out_probabilities
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import TRIALS, TrainingDirectory, TrainingSpec
from datacreate.finetuning.statistics import compute_scores
from datacreate.finetuning.train import Prepared, encode_inputs, training_spec
from datacreate.finetuning.training_rows import (
    MIN_ROWS_TO_SPLIT,
    TrainingSet,
    check_distinct,
    held_out_splits,
    read_file,
    read_source,
    training_set,
)
from datacreate.formats.example import Json
from datacreate.formats.options import FormatOptions
from datacreate.formats.reader import MAX_EXAMPLES
from datacreate.messages import StepProgress
from datacreate.plan import read_inputs
from datacreate.run_models import models_of, needs_embedder
from datacreate.runs.config import CreateConfig, IdentityOptions, RunSpec
from datacreate.runs.directory import RunDirectory
from datacreate.settings import Settings, setting
from datacreate.signals import caught_signals
from datacreate.verification.scoring import Probabilities

FOLDS = 3

MIN_PARENTS = 10
ROWS_PER_PARENT = 5  # to create: a parent is shown in about one request

REPEATED_OPTIONS = (
    *("model", "adapter", "verifier", "embedding_model", "attributes", "corpus", "corpus_field"),
    *("passage_tokens", "decontaminate", "num_examples"),
)
"""Options of `create` for which a run's config.json may not suffice: it has names, but not the folders of files."""


class ImproveConfig(Settings):
    """One round as requested."""

    runs: tuple[Path, ...] = Field(min_length=1)  # finished; the settings are those of the first
    count: int = setting("Examples to create, beside those of RUN.", "output", default=..., gt=0)
    run_dir: Path | None = setting(
        "Run directory of the new examples; the same command resumes the run in it.",
        "output",
        metavar="DIR",
        shown_default="RUN-improved, of the last RUN",
    )
    encoder: str = setting(
        "Preset or checkpoint folder that students start from, such as all-minilm-l6-v2: the one that you will train.",
        "training",
        default=...,
    )
    epochs: int = setting("Passes over the rows for a student.", "training", default=10, gt=0)
    dev: Path | None = setting(
        "File with human rows: one student is trained on all rows of RUN, and the rows of this file that it gets "
        "wrong are the hard ones. The new examples do not repeat them.",
        "input",
        metavar="FILE",
    )
    create: dict[str, Any] = Field(default={})  # options of `create`, instead of those of the run

    @property
    def directory(self) -> RunDirectory:
        """Of the new run."""
        last = self.runs[-1] if self.runs[-1].name else self.runs[-1].absolute()
        return RunDirectory(self.run_dir or last.with_name(f"{last.name}-improved"))

    @property
    def most_parents(self) -> int:
        return min(max(MIN_PARENTS, self.count // ROWS_PER_PARENT), MAX_EXAMPLES)


def creation_config(config: ImproveConfig, parents: Sequence[Mapping[str, Json]]) -> CreateConfig:
    """The new run: the settings of the first RUN, with `parents` as its formatting examples.

    Raises UsageError for wrong options, or for files that have to be given again; RunError.
    """
    directory = RunDirectory(config.runs[0])
    spec, given = directory.read_config().spec, config.create
    for name in ("corpus", "attributes"):
        if getattr(spec, name) and name not in given:
            raise UsageError(f"--{name}: {directory.path} was made with one; give it again")
    sampling = [generator.sampling for generator in spec.generators]
    shared = {k: v for k, v in sampling[0].items() if all(each.get(k) == v for each in sampling)}
    for name in ("max_tokens", "longest_text"):  # by the longest example
        shared.pop(name, None)
    settings = {
        **spec.filters.model_dump(),
        **shared,
        **_models(spec),
        **spec.values_for(IdentityOptions),
        "max_parent_uses": CreateConfig.model_fields["max_parent_uses"].default,  # of other strategies
        "num_examples": spec.num_examples,
        "label_ratio": spec.label_ratio,
        **({"embedding_model": spec.embedding_model} if spec.embedding_model else {}),
        # A leading space: a text that starts with @ would be the name of a file.
        "instruction": spec.instruction and f" {spec.instruction}",
        "format": str(directory.config_path),
        **given,
        "decontaminate": _decontamination_names(config, spec),
        # The recipe of the paper takes one formatting example.
        "recipe": "best" if spec.recipe == "paper" else spec.recipe,
        "strategy": "naive",  # takes the formatting examples in turns
        "example": tuple(map(dict, parents)),
        "improves": spec.improves or spec.examples_id,
        "count": config.count,
        "run_dir": config.directory.path,
    }
    if "verifier" in given and spec.verification is None:
        del settings["verify"]
    return CreateConfig.of(**settings)


def _decontamination_names(config: ImproveConfig, spec: RunSpec) -> list[str | Path]:
    """The test sets of the first RUN (not with `none`), what the user gives, --dev, and the rows of all RUNs."""
    given = config.create.get("decontaminate") or ()
    texts = [given] if isinstance(given, str) else given
    listed = [part.strip() for text in texts for part in text.split(",")]
    before = () if "none" in listed else spec.compared_with
    # An absolute path is no name of a benchmark.
    files = [path.absolute() for path in (config.dev, *config.runs) if path]
    names = [*(name for name in listed if name != "none"), *files]
    known = {Path(name).name for name in names}
    for ref in before:
        if not ref.split and ref.name.rstrip(os.sep) not in known:
            was = f"{config.runs[0]} was made with --decontaminate {ref.name}"
            raise UsageError(f"{was}; give that file again")
    return list(dict.fromkeys([*(ref.name for ref in before if ref.split), *names]))


def _models(spec: RunSpec) -> dict[str, Any]:
    """The generators and the verification of a run, as options."""
    names, verification = tuple(generator.model for generator in spec.generators), spec.verification
    if verification is None:
        return {"model": names, "verify": "off"}
    verifier = None if verification.model_sha256 == spec.generators[0].sha256 else verification.model
    checks = {"verify": verification.mode, "label_noise_check": verification.label_noise_check}
    return {"model": names, "verifier": verifier, **checks}


@dataclass(frozen=True)
class JudgedRow:
    """A row, with the probabilities of its answers by the verifier and by a student that was not trained on it."""

    values: Mapping[str, Json]
    names: Sequence[str]  # labels, or the options of the row
    answer: int  # index of its own one
    student: Sequence[float]
    verifier: Probabilities | None

    @property
    def is_missed(self) -> bool:
        """Whether the student answers otherwise."""
        return _best(self.student) != self.answer

    @property
    def is_confirmed(self) -> bool:
        """Whether the verifier gives the same answer, or there is none."""
        return self.verifier is None or _best(self.verifier) == self.answer

    @property
    def is_doubtful(self) -> bool:
        """Whether both answer otherwise: the row is probably mislabeled."""
        return self.is_missed and not self.is_confirmed

    @property
    def order(self) -> tuple[bool, float]:
        """Sorts rows, the hardest first: those that the student misses and the verifier confirms; then, those of
        which the student is least sure.
        """
        own = self.student[self.answer]
        if self.is_missed and self.verifier is not None and self.is_confirmed:
            return False, own
        return True, abs(own - max(p for at, p in enumerate(self.student) if at != self.answer))

    @property
    def line(self) -> str:
        """The line of parents.jsonl."""
        opinions = {"student": self.student, "verifier": self.verifier}
        by_name = {
            who: given and dict(zip(self.names, (round(p, 4) for p in given), strict=True))
            for who, given in opinions.items()
        }
        document = {"row": self.values, "label": self.names[self.answer], **by_name}
        return json.dumps(document, ensure_ascii=False) + "\n"


def _best(probabilities: Sequence[float]) -> int:
    return max(range(len(probabilities)), key=probabilities.__getitem__)


def hard_rows(rows: Sequence[JudgedRow], number: int, *, balanced: bool) -> list[JudgedRow]:
    """The hardest rows, at most `number`, without doubtful ones. `balanced`: labels in turns."""
    by_label: defaultdict[int, list[JudgedRow]] = defaultdict(list)
    for row in sorted((row for row in rows if not row.is_doubtful), key=lambda row: row.order):
        by_label[row.answer if balanced else 0].append(row)
    in_turns = chain.from_iterable(zip_longest(*(by_label[label] for label in sorted(by_label))))
    return list(islice(filter(None, in_turns), number))


@dataclass(frozen=True)
class Round:
    """What the students of a round learn and judge."""

    config: ImproveConfig
    training: TrainingSpec
    encoder: Path
    rows: TrainingSet
    splits: Sequence[tuple[list[int], list[int]]]  # per student: its training rows, and those it judges

    def read_parents(self) -> list[Mapping[str, Json]]:
        """The formatting examples of the new run: as chosen; before that the first rows, as many as will be chosen."""
        path = self.config.directory.parents_path
        if not path.is_file():
            return list(self.rows.rows[: self.config.most_parents])
        return [json.loads(line)["row"] for line in path.read_bytes().splitlines()]

    def judge(self, folder: Path, report: OnNamedStep) -> list[JudgedRow]:
        """The rows with the opinions of students, which are trained in `folder`."""
        examples, head = self.rows.examples, self.training.task
        inputs = encode_inputs(Prepared(self.training, self.encoder, examples, ()))
        students = held_out_probabilities(inputs, self.splits, folder, report)
        return [
            JudgedRow(
                self.rows.rows[at],
                examples[at].options or head.names,
                examples[at].answer or 0,
                students[at],
                examples[at].probabilities,
            )
            for at in sorted(students)
        ]

    def choose(self, judged: Sequence[JudgedRow]) -> tuple[list[JudgedRow], dict[str, Any]]:
        """The formatting examples of the new run, and the scores of the students for scores.json."""
        config, head = self.config, self.training.task
        candidates = [row for row in judged if row.is_missed] if config.dev else judged
        labels = not head.is_multiple_choice
        if not (chosen := hard_rows(candidates, config.most_parents, balanced=labels)):
            if config.dev:
                raise TrainingError(f"{config.dev}: the student gets no row wrong; give other rows")
            raise TrainingError(
                f"{config.runs[0]}: students and verifier contradict every row; check its labels"
            )
        confirmed = [row for row in judged if row.is_confirmed] or judged
        answers = [_best(row.student) for row in confirmed]
        scores = compute_scores([row.answer for row in confirmed], answers, head.names, balanced=labels)
        counts = {
            "judged": len(judged),
            "missed": sum(row.is_missed for row in judged),
            "doubtful": sum(row.is_doubtful for row in judged),
        }
        return chosen, counts | scores.model_dump()


def read_round(config: ImproveConfig) -> Round:
    """Read the rows, and find the encoder. Raises what `read_source`, `training_set` and `resolve` raise, and
    TrainingError if there are too few rows, UsageError if the directory of the new run holds another one.
    """
    directory = config.directory
    directory.check()
    if directory.exists and not directory.parents_path.is_file():
        raise UsageError(
            f"{directory.path} holds a run that `improve` did not make; choose another --run-dir"
        )
    check_distinct(f"{run}{os.sep}" for run in config.runs)
    sources = []
    for run in map(RunDirectory, config.runs):
        run.read_config()
        sources.append(read_source(f"{run.path}{os.sep}", verifier_probabilities=True))  # no benchmark's name
    created = sum(len(source.rows) for source in sources)
    if created < MIN_ROWS_TO_SPLIT:
        few = f"{created} rows are too few; create at least {MIN_ROWS_TO_SPLIT}"
        raise TrainingError(f"{config.runs[-1]}: {few}")
    if config.dev:
        options = FormatOptions(format=str(RunDirectory(config.runs[0]).config_path))
        sources.append(read_file(config.dev, options))
    rows = training_set(sources)
    training, encoder = training_spec(rows, config.encoder, Hyperparameters(epochs=config.epochs))
    if config.dev:
        human = [family.startswith(f"{len(config.runs)}:") for family in rows.families]
        texts = [(each.text, each.passage, each.options) for each in rows.examples]
        trained = [i for i, is_human in enumerate(human) if not is_human]
        known = {texts[i] for i in trained}
        judged = [i for i, text in enumerate(texts) if human[i] and text not in known]
        if not judged:
            raise UsageError(f"{config.dev}: the student is trained on all of these rows; give other rows")
        splits = [(trained, judged)]
    else:
        splits = held_out_splits(rows.examples, rows.families, rows.head, FOLDS)
    return Round(config, training, encoder, rows, splits)


def prepare_round(config: ImproveConfig, progress: StepProgress) -> CreateConfig:
    """The settings of the new run, after its formatting examples have been chosen and written to parents.jsonl.

    They are chosen once; after an interruption the same call resumes. Raises what `read_round` and `train` raise,
    what `create` raises before it starts a server, and RunMismatch if they were chosen with other settings.
    """
    round_, directory = read_round(config), config.directory
    students = TrainingDirectory(directory.students_path)
    creation = creation_config(config, round_.read_parents())
    inputs = read_inputs(creation, directory)
    models_of(creation, inputs.verify, needs_embedder(creation), progress.notify)

    def report(what: str, done: int, total: int, score: float | None) -> None:
        lock.check()
        progress.step(what, done, total, score)

    with caught_signals(), students.locked(round_.training, progress.notify) as lock:
        if not directory.parents_path.is_file():
            progress.notify(f"loading {round_.training.encoder}")
            chosen, scores = round_.choose(round_.judge(students.path / TRIALS, report))
            share = scores["accuracy" if scores["balanced_accuracy"] is None else "balanced_accuracy"]
            doubtful = "" if config.dev else f"; {scores['doubtful']} more are probably mislabeled"
            progress.notify(
                f"students: accuracy {100 * share:.1f} % on {scores['rows']} held-out rows "
                f"({100 / scores['classes']:.1f} % is chance){doubtful}"
            )
            if not scores["above_chance"]:
                progress.notify("warning: students are hardly above chance: hard rows may be arbitrary")
            lock.check()
            document = json.dumps(scores, indent=2, ensure_ascii=False) + "\n"
            replace_file(students.path / "scores.json", document)
            replace_file(directory.parents_path, "".join(row.line for row in chosen))  # the last one
    parents = round_.read_parents()
    are = "1 hard row is the formatting example"
    if len(parents) > 1:
        are = f"{len(parents)} hard rows are the formatting examples, taken in turns"
    progress.notify(f"{directory.parents_path}: {are}")
    return creation_config(config, parents)
