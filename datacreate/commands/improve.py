"""`datacreate improve`: students show which rows of a run are hard, and a second run starts from those.

A student is an encoder that is trained on rows of the run. No human labels are needed, since a student predicts only
rows that it was not trained on (cross-fitting). As in S3 (Wang et al., 2023) and LLM2LLM (Lee et al., 2024), the hard
rows are then the formatting examples of an ordinary run.
"""

from __future__ import annotations

import gc
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from pydantic import Field

from datacreate.creation.plan import read_inputs
from datacreate.creation.recipe import METHODS
from datacreate.creation.run_models import models_of
from datacreate.errors import TrainingError, UsageError
from datacreate.files import replace_file
from datacreate.filters import FilterOptions
from datacreate.finetuning.encoder import Encoded, collator, load_with_head
from datacreate.finetuning.evaluate import most_probable, probabilities
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import TRIALS, TrainingDirectory
from datacreate.finetuning.statistics import compute_scores
from datacreate.finetuning.train import (
    MIN_ROWS_TO_SPLIT,
    HeldOutSplit,
    PreparedTraining,
    checked_steps,
    encode_inputs,
    make_held_out_splits,
    make_training_spec,
)
from datacreate.finetuning.training_rows import (
    ClassificationExample,
    check_distinct,
    make_training_set,
    read_file,
    read_source,
)
from datacreate.finetuning.trials import OnNamedStep, run_trial
from datacreate.formats import FormatOptions
from datacreate.formats.example import Json
from datacreate.formats.row_file import MAX_EXAMPLES
from datacreate.libraries import quiet
from datacreate.messages import Notify, Progress
from datacreate.runs.config import SIZES_BY_EXAMPLE, CreateConfig, ResultOptions, RunSpec
from datacreate.runs.directory import RunDirectory
from datacreate.settings import Settings, setting
from datacreate.signals import caught_signals
from datacreate.verification import Probabilities

FOLDS = 3  # parts of the rows, one for each student, which predicts it

MIN_PARENTS = 10
ROWS_PER_PARENT = 5  # to create: a parent is shown in about one request

REPEATED_OPTIONS = (
    "model", "adapter", "verifier", "embedding_model", "attributes", "corpus", "corpus_field", "passage_tokens",
    "decontaminate", "num_examples",
)  # fmt: skip
"""Options of `create` for which a run's config.json may not suffice: it has names, but not the folders of files."""


class ImproveConfig(Settings):
    runs: tuple[Path, ...] = Field(min_length=1)  # finished; the settings are those of the first
    count: int = setting("Examples to create, besides those of RUN.", "output", default=..., gt=0)
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
        last = self.runs[-1] if self.runs[-1].name else self.runs[-1].absolute()
        return RunDirectory(self.run_dir or last.with_name(f"{last.name}-improved"))

    @property
    def max_parents(self) -> int:
        return min(max(MIN_PARENTS, self.count // ROWS_PER_PARENT), MAX_EXAMPLES)


def make_creation_config(config: ImproveConfig, parents: Sequence[Mapping[str, Json]]) -> CreateConfig:
    """The settings of the new run: those of the first RUN, with `parents` as its formatting examples.

    Raises UsageError for wrong options, or for files that have to be given again; RunError.
    """
    directory = RunDirectory(config.runs[0])
    spec, changed = directory.read_config().spec, config.create
    for name in ("corpus", "attributes"):
        if getattr(spec, name) and name not in changed:
            raise UsageError(f"--{name}: {directory.path} was made with one; give it again")
    options = {
        **spec.filters.model_dump(),
        **_shared_sampling(spec),
        **_models(spec),
        **spec.model_dump(include=set(ResultOptions.model_fields)),
        "max_parent_uses": CreateConfig.model_fields["max_parent_uses"].default,  # of other strategies
        "num_examples": spec.num_examples,
        "label_ratio": spec.label_ratio,
        **({"embedding_model": spec.embedding_model} if spec.embedding_model else {}),
        # A leading space: a text that starts with @ would be the name of a file.
        "instruction": spec.instruction and f" {spec.instruction}",
        "format": str(directory.config_path),
        **changed,
        "decontaminate": _decontamination_names(config, spec),
        "recipe": "best" if METHODS[spec.recipe].needs_one_example else spec.recipe,
        "strategy": "naive",  # takes the formatting examples in turns
        "example": tuple(map(dict, parents)),
        "improves": spec.improves or spec.examples_id,
        "count": config.count,
        "run_dir": config.directory.path,
    }
    if "verifier" in changed and spec.verification is None:
        del options["verify"]
    return CreateConfig.of(**options)


def _shared_sampling(spec: RunSpec) -> dict[str, Any]:
    """The sampling settings that are the same for all generators of a run."""
    first, *others = (generator.sampling for generator in spec.generators)
    return {
        name: value
        for name, value in first.items()
        if name not in SIZES_BY_EXAMPLE and all(other.get(name) == value for other in others)
    }


def _decontamination_names(config: ImproveConfig, spec: RunSpec) -> list[str | Path]:
    """The test sets of the first RUN (not with `none`), what the user gives, --dev, and the rows of all RUNs.

    Raises UsageError if the first RUN was compared with a file that is not given again.
    """
    given = FilterOptions.of(decontaminate=config.create.get("decontaminate")).decontaminate
    # An absolute path is not the name of a benchmark.
    names: list[str | Path] = [*(given or ()), *(path.absolute() for path in (config.dev, *config.runs) if path)]
    file_names = {Path(name).name for name in names}
    stored = () if given == () else spec.compared_with
    for held_out in stored:
        if not held_out.split and held_out.name.rstrip(os.sep) not in file_names:
            raise UsageError(f"{config.runs[0]} was made with --decontaminate {held_out.name}; give that file again")
    benchmarks = [held_out.name for held_out in stored if held_out.split]
    return list(dict.fromkeys([*benchmarks, *names]))


def _models(spec: RunSpec) -> dict[str, Any]:
    """The generators and the verification of a run, as options."""
    names, verification = tuple(generator.model for generator in spec.generators), spec.verification
    if verification is None:
        return {"model": names, "verify": "off"}
    verifier = None if verification.model_sha256 == spec.generators[0].sha256 else verification.model
    checks = {"verify": verification.mode, "label_noise_check": verification.label_noise_check}
    return {"model": names, "verifier": verifier, **checks}


@dataclass(frozen=True)
class PredictedRow:
    """A row, with the probabilities of its answers by the verifier and by a student that was not trained on it."""

    values: Mapping[str, Json]
    names: Sequence[str]  # labels, or the options of the row
    answer_index: int  # of the row's own answer
    student: Sequence[float]
    verifier: Probabilities | None

    @property
    def is_missed(self) -> bool:
        """Whether the student gives another answer."""
        return most_probable(self.student) != self.answer_index

    @property
    def is_confirmed(self) -> bool:
        """Whether the verifier gives the same answer, or there is none."""
        return self.verifier is None or most_probable(self.verifier) == self.answer_index

    @property
    def is_probably_mislabeled(self) -> bool:
        """Whether the student and the verifier both give another answer."""
        return self.is_missed and not self.is_confirmed

    @property
    def order(self) -> tuple[bool, float]:
        """The sort key that puts the hardest rows first.

        First come rows that the student misses and the verifier confirms, then those of which the student is least
        sure.
        """
        own = self.student[self.answer_index]
        if self.is_missed and self.verifier is not None and self.is_confirmed:
            return False, own
        return True, abs(own - max(p for index, p in enumerate(self.student) if index != self.answer_index))

    @property
    def line(self) -> str:
        document = {
            "row": self.values,
            "label": self.names[self.answer_index],
            "student": self._by_name(self.student),
            "verifier": self.verifier and self._by_name(self.verifier),
        }
        return json.dumps(document, ensure_ascii=False) + "\n"

    def _by_name(self, probabilities: Sequence[float]) -> dict[str, float]:
        return {name: round(p, 4) for name, p in zip(self.names, probabilities, strict=True)}


def choose_hard_rows(rows: Sequence[PredictedRow], count: int, *, balanced: bool) -> list[PredictedRow]:
    """The hardest rows, at most `count`, without those that are probably mislabeled. `balanced`: labels in turns."""
    by_label: defaultdict[int, list[PredictedRow]] = defaultdict(list)
    for row in sorted((row for row in rows if not row.is_probably_mislabeled), key=lambda row: row.order):
        by_label[row.answer_index if balanced else 0].append(row)
    in_turns = chain.from_iterable(zip_longest(*(by_label[label] for label in sorted(by_label))))
    return list(islice(filter(None, in_turns), count))


@dataclass(frozen=True)
class ImproveInputs:
    """The rows that `improve` reads; trains the students and chooses the hard rows."""

    config: ImproveConfig
    prepared: PreparedTraining  # of all rows; a student is trained on a part of them
    splits: Sequence[HeldOutSplit]  # one per student, which predicts the held-out rows

    def read_parents(self) -> list[Mapping[str, Json]]:
        """The formatting examples of the new run: as chosen; before that the first rows, as many as will be chosen."""
        path = self.config.directory.parents_path
        if not path.is_file():
            return [example.values for example in self.prepared.rows[: self.config.max_parents]]
        try:
            return [json.loads(line)["row"] for line in path.read_bytes().splitlines()]
        except (OSError, ValueError, TypeError, KeyError):
            raise TrainingError(f"{path} is damaged; restore it from a copy, or choose another --run-dir") from None

    def predict(self, folder: Path, on_step: OnNamedStep) -> list[PredictedRow]:
        """The rows with the predictions of students, which are trained in `folder`.

        Finished students are kept, so that the same call resumes. Raises what `run_trial` raises.
        """
        import torch

        examples, head = self.prepared.rows, self.prepared.training.head
        inputs = encode_inputs(self.prepared)
        dataset, rate = inputs.rows.dataset, inputs.training.hyperparameters.learning_rates[0]
        predicted_rows: dict[int, PredictedRow] = {}
        for number, (trained, held_out) in enumerate(self.splits, 1):
            student_folder, name = folder / f"student-{number}", f"student {number} of {len(self.splits)}"
            rows = Encoded(dataset.select(trained), 0)
            run_trial(replace(inputs, rows=rows), 1, rate, student_folder, partial(on_step, name))
            with quiet():
                student = load_with_head(student_folder / "model", head)
                collate = collator(head, inputs.tokenizer)
                predicted = probabilities(student, dataset.select(held_out), collate)
            for row, prediction in zip(held_out, predicted.tolist(), strict=True):
                example = examples[row]
                names, answer = example.options or head.names, example.answer_index or 0
                predicted_rows[row] = PredictedRow(example.values, names, answer, prediction, example.probabilities)
            del student, collate
            gc.collect()  # of a Trainer, which is part of reference cycles
        torch.cuda.empty_cache()  # a server may need the memory next
        return [predicted_rows[row] for row in sorted(predicted_rows)]

    def choose(self, rows: Sequence[PredictedRow]) -> tuple[list[PredictedRow], dict[str, Any]]:
        """The formatting examples of the new run, and the scores of the students for scores.json."""
        config, head = self.config, self.prepared.training.head
        candidates = [row for row in rows if row.is_missed] if config.dev else rows
        has_labels = not head.is_multiple_choice
        chosen = choose_hard_rows(candidates, config.max_parents, balanced=has_labels)
        if not chosen and config.dev:
            raise TrainingError(f"{config.dev}: the student gets no row wrong; give other rows")
        if not chosen:
            raise TrainingError(f"{config.runs[0]}: students and verifier contradict every row; check its labels")
        confirmed = [row for row in rows if row.is_confirmed] or rows
        predictions = [most_probable(row.student) for row in confirmed]
        scores = compute_scores([row.answer_index for row in confirmed], predictions, head.names, balanced=has_labels)
        counts = {
            "judged": len(rows),
            "missed": sum(row.is_missed for row in rows),
            "doubtful": sum(row.is_probably_mislabeled for row in rows),
        }
        return chosen, counts | scores.model_dump()


def read_improve_inputs(config: ImproveConfig) -> ImproveInputs:
    """Read the rows, and find the encoder.

    Raises what `read_source`, `make_training_set` and `resolve` raise, TrainingError if there are too few rows, and
    UsageError if the directory of the new run holds another run.
    """
    directory = config.directory
    directory.check()
    if directory.exists and not directory.parents_path.is_file():
        raise UsageError(f"{directory.path} holds a run that `improve` did not make; choose another --run-dir")
    folders = [f"{run}{os.sep}" for run in config.runs]  # the separator: no name of a benchmark
    check_distinct(folders)
    sources = []
    for run, folder in zip(config.runs, folders, strict=True):
        RunDirectory(run).read_config()
        sources.append(read_source(folder, with_verifier_probabilities=True))
    created = sum(len(source.rows) for source in sources)
    if created < MIN_ROWS_TO_SPLIT:
        raise TrainingError(f"{config.runs[-1]}: {created} rows are too few; create at least {MIN_ROWS_TO_SPLIT}")
    if config.dev:
        options = FormatOptions(format=str(RunDirectory(config.runs[0]).config_path))
        sources.append(read_file(config.dev, options))
    rows = make_training_set(sources)
    if config.dev:
        splits = [_human_split(rows.examples, len(config.runs), config.dev)]
    else:
        splits = make_held_out_splits(rows.examples, rows.head, FOLDS)
    spec, encoder = make_training_spec(rows, config.encoder, Hyperparameters(epochs=config.epochs))
    return ImproveInputs(config, PreparedTraining(spec, encoder, rows.examples, ()), splits)


def _human_split(examples: Sequence[ClassificationExample], source: int, dev: Path) -> HeldOutSplit:
    """Hold out the human rows, which have this number of the source. Raises UsageError if all are among the others."""
    is_human = [example.family.startswith(f"{source}:") for example in examples]
    texts = [example.inputs for example in examples]
    trained = [row for row, human in enumerate(is_human) if not human]
    trained_texts = {texts[row] for row in trained}
    held_out = [row for row, text in enumerate(texts) if is_human[row] and text not in trained_texts]
    if not held_out:
        raise UsageError(f"{dev}: the student is trained on all of these rows; give other rows")
    return HeldOutSplit(trained, held_out)


def prepare_improve(config: ImproveConfig, progress: Progress) -> CreateConfig:
    """The settings of the new run, after its formatting examples have been chosen and written to parents.jsonl.

    They are chosen once; after an interruption the same call resumes. Raises what `read_improve_inputs` and `train`
    raise, what `create` raises before it starts a server, and RunMismatch if they were chosen with other settings.
    """
    improve_inputs, directory = read_improve_inputs(config), config.directory
    students, training = TrainingDirectory(directory.students_path), improve_inputs.prepared.training
    creation = make_creation_config(config, improve_inputs.read_parents())
    inputs = read_inputs(creation)
    models_of(creation, inputs.verify, progress.notify, needs_embedder=inputs.config.needs_embedder)
    with caught_signals(), students.locked(training, progress.notify) as lock:
        if not directory.parents_path.is_file():
            progress.notify(f"loading {training.encoder}")
            predicted = improve_inputs.predict(students.path / TRIALS, checked_steps(progress, lock))
            chosen, scores = improve_inputs.choose(predicted)
            _notify_scores(scores, config, progress.notify)
            lock.check()
            document = json.dumps(scores, indent=2, ensure_ascii=False) + "\n"
            replace_file(students.path / "scores.json", document)
            replace_file(directory.parents_path, "".join(row.line for row in chosen))  # marks the choice as made
    parents = improve_inputs.read_parents()
    chosen_rows = "1 hard row is the formatting example"
    if len(parents) > 1:
        chosen_rows = f"{len(parents)} hard rows are the formatting examples, taken in turns"
    progress.notify(f"{directory.parents_path}: {chosen_rows}")
    return make_creation_config(config, parents)


def _notify_scores(scores: Mapping[str, Any], config: ImproveConfig, notify: Notify) -> None:
    """Notify how good the students are, and how many rows are probably mislabeled."""
    share = scores["accuracy" if scores["balanced_accuracy"] is None else "balanced_accuracy"]
    doubtful = ""
    if scores["doubtful"] and not config.dev:
        doubtful = f"; {scores['doubtful']} more are probably mislabeled"
    notify(
        f"students: accuracy {100 * share:.1f} % on {scores['rows']} held-out rows "
        f"({100 / scores['classes']:.1f} % is chance){doubtful}"
    )
    if not scores["above_chance"]:
        notify("warning: students are hardly above chance: hard rows may be arbitrary")
