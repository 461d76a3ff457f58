"""Evaluations on disk as `datacreate evaluate` leaves them, of answers that a test makes up."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datacreate.finetuning.evaluate import write_evaluation
from datacreate.finetuning.records import Condition, Evaluation, Prediction
from datacreate.finetuning.statistics import compute_scores

YES_NO = ("True", "False")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def answers(right: int, rows: int) -> list[bool]:
    """The first `right` rows right, the others wrong."""
    return [place < right for place in range(rows)]


def evaluated(
    folder: Path,
    right: Sequence[bool],
    truth: Sequence[str] | None = None,
    *,
    options: int = 0,
    benchmark: str = "creak",
    train: str | None = "",
    split: str = "test",
    test: str = "rows",
    condition: str = "tree",
    count: int = 100,
    full: bool = True,
    generator: str | None = None,
    example: str | None = None,
    rows_of: str = "a set",
    seed: int = 1,
    settings: Sequence[str] | None = None,
    **changes: Any,
) -> Path:
    """Write an evaluation: of labels True and False (`truth`; in turn), or of `options` options to a question.

    A wrong answer is the other label, or the next option; `train` is the benchmark where it is not named.
    """
    usual = {"encoder": "tiny", "encoder_sha256": sha("tiny"), "recipe": "datacreate", "selection": "held-out"}
    names = list(map(str, range(options))) or list(YES_NO)
    texts = [f"option {name}" for name in names] if options else names
    truth = truth or [texts[place % len(texts)] for place in range(len(right))]
    places = list(map(texts.index, truth))
    given = [place if fine else (place + 1) % len(names) for place, fine in zip(places, right, strict=True)]
    predictions = [
        Prediction(row=row, label=label, predicted=texts[said], correct=fine)
        for row, (label, said, fine) in enumerate(zip(truth, given, right, strict=True))
    ]
    evaluation = Evaluation(
        benchmark=benchmark,
        split=split,
        head="multiple_choice" if options else "sequence_classification",
        digest=sha(f"{benchmark} {split} {test}"),
        condition=Condition(
            name=condition,
            benchmark=benchmark if train == "" else train,
            count=count,
            full=full,
            generator=generator,
            example=example,
            digest=sha(rows_of),
            settings=settings and tuple(settings),
        ),
        **usual | changes,
        seed=seed,
        scores=compute_scores(places, given, names, balanced=not options),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_evaluation(folder, evaluation, predictions)
    return folder


def zero_shot(folder: Path, right: Sequence[bool], model: str, **changes: Any) -> Path:
    """Write an evaluation of a generator's own answers."""
    usual = {"condition": "zero-shot", "train": None, "encoder": model, "selection": "none", "rows_of": model}
    return evaluated(folder, right, **(usual | changes))
