"""The generator itself answering a test set: what its created data has to be compared with.

Each row is asked as verification asks (tasks.blind): the choices are scored, in two orders, and the
likeliest is its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from datacreate.checkpoints import Checkpoint
from datacreate.engines.base import Engine
from datacreate.engines.factory import checkpoint_of, make_engine
from datacreate.engines.self_test import scores_are_real
from datacreate.engines.settings import EngineOptions
from datacreate.errors import Stopped
from datacreate.finetuning.evaluate import TestSet, judged, keep, known_evaluation, read_test_set
from datacreate.finetuning.record import Arm, Evaluation
from datacreate.finetuning.task import Question, Task
from datacreate.finetuning.train import Progress
from datacreate.prompts.label_scoring import LabelQuestion
from datacreate.signals import Signals, caught_signals
from datacreate.verification.scoring import score_labels

EngineFactory = Callable[[Checkpoint, EngineOptions, Path], Engine]


def answer_zero_shot(
    model: str,
    names: Sequence[str],
    out: Path,
    progress: Progress,
    *,
    options: EngineOptions | None = None,
    split: str = "test",
    engine_factory: EngineFactory | None = None,
) -> list[Evaluation]:
    """Have a model answer the benchmarks `names`; evaluations are kept in `out`/evaluations.

    Those that are there already are read. Raises CheckpointError, BenchmarkError or EngineError;
    Stopped after a signal: finished test sets are kept.
    """
    options = options or EngineOptions()
    checkpoint = checkpoint_of(model, options)
    tests = [read_test_set(name, split) for name in dict.fromkeys(names)]
    found: list[Evaluation] = []
    engine: Engine | None = None
    with ExitStack() as stack:
        signals = stack.enter_context(caught_signals())
        for test in tests:
            place = out / "evaluations" / f"{test.benchmark.name}-{split}"
            known = known_evaluation(place, test)
            if known is None:
                if engine is None:
                    out.mkdir(parents=True, exist_ok=True)
                    log = out / "engine.log"
                    if engine_factory:
                        engine = engine_factory(checkpoint, options, log)
                    else:
                        engine = make_engine(checkpoint, options, count=500, log=log, notify=progress.notify)
                    stack.callback(engine.close)
                    engine.start([scores_are_real()])
                known = _measure(engine, test, checkpoint, place, progress, signals)
            found.append(known)
    return found


def _measure(
    engine: Engine, test: TestSet, checkpoint: Checkpoint, place: Path, progress: Progress, signals: Signals
) -> Evaluation:
    questions, truncated = _questions(engine, test)

    def look(done: int) -> None:
        if signals.received:
            raise Stopped("stopped by a signal; run the same command to go on with this test set")
        progress.step(test.benchmark.name, done, len(questions), None)

    with signals.deferred():
        answers = score_labels(engine, questions, look)
    predictions, figures = judged(test, answers, truncated)
    evaluation = Evaluation(
        benchmark=test.benchmark.name,
        split=test.split,
        head=test.task.head,
        digest=test.digest,
        condition=Arm(
            name="zero-shot",
            benchmark=None,
            count=0,
            full=True,
            generator=checkpoint.name,
            digest=checkpoint.sha256,
        ),
        encoder=checkpoint.name,
        encoder_sha256=checkpoint.sha256,
        settings="zero-shot",
        selection="none",
        seed=0,
        scores=figures,
    )
    keep(place, evaluation, predictions)
    return evaluation


def _questions(engine: Engine, test: TestSet) -> tuple[list[tuple[LabelQuestion, str]], int]:
    """What is asked, each with the seed of its orders; of how many rows the passage was cut to fit."""
    lettered = test.task.head == "multiple_choice" or not engine.tells_apart(test.task.names)
    fitting = [_fitting(engine, question, test.task, lettered) for question in test.asked]
    truncated = sum(cut is not whole for cut, whole in zip(fitting, test.asked, strict=True))
    return [(_blind(each, test.task, lettered), each.text) for each in fitting], truncated


def _fitting(engine: Engine, question: Question, task: Task, lettered: bool) -> Question:
    """The question, with as much of its passage as the model's context holds."""
    room = engine.max_context - 1  # a token is written
    while question.context:
        blind = _blind(question, task, lettered)
        messages, _ = blind.prompt(range(len(blind.options)))
        length = engine.count_tokens(messages)
        if length <= room:
            break
        kept = int(len(question.context) * room / length * 0.95)
        question = replace(question, context=question.context[:kept])
    return question


def _blind(question: Question, task: Task, lettered: bool) -> LabelQuestion:
    shown = f"{question.context}\n\n{question.text}" if question.context else question.text
    return LabelQuestion(shown, question.options or task.names, lettered)
