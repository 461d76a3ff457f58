"""Zero-shot evaluation: an instruct model answers the test sets itself.

Each row is scored like an example in verification (prompts.label_scoring): under permutations of the choices. The
most probable choice is the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from datacreate.checkpoints import UNSEEN
from datacreate.engines.engine import Engine
from datacreate.engines.factory import LocalModel, make_engine, resolve_checkpoint
from datacreate.engines.self_test import scoring_test
from datacreate.engines.settings import EngineOptions
from datacreate.errors import RunMismatch, Stopped
from datacreate.finetuning.evaluate import ModelAnswers, TestSet, load_or_evaluate, read_test_set
from datacreate.finetuning.records import Condition, Evaluation
from datacreate.finetuning.training_rows import ClassificationExample
from datacreate.messages import StepProgress
from datacreate.prompts.label_scoring import LabelQuestion
from datacreate.signals import Signals, caught_signals, deferred
from datacreate.verification.scoring import score_labels


def answer_zero_shot(
    model: str,
    names: Sequence[str],
    out: Path,
    progress: StepProgress,
    *,
    options: EngineOptions | None = None,
    split: str = "test",
) -> list[Evaluation]:
    """Evaluate a model on the benchmarks `names`, in `out`/evaluations; existing evaluations are read.

    Raises CheckpointError, BenchmarkError or EngineError; UsageError if the model always thinks; RunMismatch if `out`
    is of another model; Stopped after a signal: finished test sets are kept.
    """
    options = options or EngineOptions()
    checkpoint = resolve_checkpoint(model, options)
    checkpoint.check_scores()
    tests = [read_test_set(name, split) for name in dict.fromkeys(names)]
    with ExitStack() as stack:
        signals = stack.enter_context(caught_signals())

        @cache
        def started() -> Engine:
            rows, log = sum(len(test.usable) for test in tests), out / "engine.log"
            scorer = LocalModel(checkpoint, options, verifies=True)
            engine = make_engine(scorer, count=rows, log=log, notify=progress.notify)
            stack.callback(engine.close)
            engine.start([scoring_test()])
            return engine

        def measure(test: TestSet) -> ModelAnswers:
            return _answers(started(), test, progress, signals)

        name, sha256 = checkpoint.name, checkpoint.sha256
        evaluation = partial(
            Evaluation,
            condition=Condition(
                name="zero-shot", benchmark=None, count=0, full=True, generator=name, digest=sha256
            ),
            encoder=name,
            encoder_sha256=sha256,
            recipe="zero-shot",
            selection="none",
            seed=0,
        )
        found = []
        for test in tests:
            one = load_or_evaluate(out, test, evaluation, measure, progress.notify)
            hashes = {one.encoder_sha256, sha256}
            if len(hashes) > 1 and (
                one.encoder != name or not any(each.startswith(UNSEEN) for each in hashes)
            ):
                raise RunMismatch(f"{out} has {one.encoder}'s answers to {test.name}; choose another --out")
            found.append(one)
        return found


def _answers(engine: Engine, test: TestSet, progress: StepProgress, signals: Signals) -> ModelAnswers:
    """The probabilities of the answers to each usable row."""
    scored_by_letter = test.head.is_multiple_choice or engine.needs_letters(test.head.names)

    def label_question(example: ClassificationExample) -> LabelQuestion:
        text = f"{example.passage}\n\n{example.text}" if example.passage else example.text
        return LabelQuestion(text, example.options or test.head.names, scored_by_letter)

    def shortened(example: ClassificationExample) -> ClassificationExample:
        """The example with as much of its passage as the model's context length allows."""
        room = engine.max_context - 1  # one token is generated
        while example.passage:
            question = label_question(example)
            length = engine.count_tokens(question.prompt(range(len(question.options)))[0])
            if length <= room:
                break
            kept = int(len(example.passage) * room / length * 0.95)
            example = replace(example, passage=example.passage[:kept])
        return example

    examples = list(map(shortened, test.usable))
    truncated = sum(cut is not whole for cut, whole in zip(examples, test.usable, strict=True))
    questions = [(label_question(example), example.text) for example in examples]

    def report(done: int) -> None:
        if signals.received:
            raise Stopped("stopped by a signal; run the same command to repeat this test set")
        progress.step(test.name, done, len(questions), None)

    with deferred():
        return ModelAnswers(score_labels(engine, questions, report), truncated)
