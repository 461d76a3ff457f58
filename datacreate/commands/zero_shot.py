"""Zero-shot evaluation: an instruct model answers the test sets.

Each row is scored as examples are in verification (prompts.label_scoring): under permutations of the choices. The
most probable choice is the prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

from datacreate.checkpoints.checkpoint import SERVED_AS, Checkpoint
from datacreate.engines import EngineOptions
from datacreate.engines.factory import LocalModel, make_client, resolve_checkpoint
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import scoring_test
from datacreate.errors import RunMismatch, Stopped
from datacreate.finetuning.evaluate import ModelAnswers, TestSet, load_or_evaluate, read_test_set
from datacreate.finetuning.records import ZERO_SHOT, Condition, Evaluation
from datacreate.finetuning.training_rows import ClassificationExample
from datacreate.messages import Progress
from datacreate.prompts.label_scoring import LabelPrompt
from datacreate.signals import Signals, caught_signals, deferred
from datacreate.verification import score_labels

_SHORTENING = 0.95  # of the length that seems to fit, because tokens are not equally long


def answer_zero_shot(
    model: str,
    names: Sequence[str],
    out: Path,
    progress: Progress,
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
    checkpoint.check_can_score()
    tests = [read_test_set(name, split) for name in dict.fromkeys(names)]
    name, sha256 = checkpoint.name, checkpoint.sha256
    new_evaluation = partial(
        Evaluation,
        condition=Condition(name=ZERO_SHOT, benchmark=None, count=0, full=True, generator=name, digest=sha256),
        encoder=name,
        encoder_sha256=sha256,
        hyperparameters=ZERO_SHOT,
        selection="none",
        seed=0,
    )
    evaluations = []
    with ExitStack() as stack:
        signals = stack.enter_context(caught_signals())

        @cache
        def started_client() -> ModelClient:  # no server is needed if all evaluations exist
            rows, log = sum(len(test.usable) for test in tests), out / "engine.log"
            scorer = LocalModel(checkpoint, options, only_scores=True)
            client = make_client(scorer, count=rows, log=log, notify=progress.notify)
            stack.callback(client.close)
            client.start([scoring_test()])
            return client

        measure = partial(_answers, started_client, progress, signals)
        for test in tests:
            evaluation = load_or_evaluate(out, test, new_evaluation, measure, progress.notify)
            if not _is_of_model(evaluation, checkpoint):
                raise RunMismatch(f"{out} has {evaluation.encoder}'s answers to {test.name}; choose another --out")
            evaluations.append(evaluation)
    return evaluations


def _is_of_model(evaluation: Evaluation, checkpoint: Checkpoint) -> bool:
    """Whether an evaluation is of this model. If one of the two was only served, their names are compared."""
    hashes = (evaluation.encoder_sha256, checkpoint.sha256)
    if any(sha256.startswith(SERVED_AS) for sha256 in hashes):
        return evaluation.encoder == checkpoint.name
    return evaluation.encoder_sha256 == checkpoint.sha256


def _answers(
    started_client: Callable[[], ModelClient], progress: Progress, signals: Signals, test: TestSet
) -> ModelAnswers:
    """The probabilities of the answers to each usable row, and the number of rows with a shortened passage."""
    client = started_client()
    scored_by_letter = test.head.is_multiple_choice or client.needs_letters(test.head.names)
    fitting = [
        _fitting_prompt(example, test.head.names, client, scored_by_letter=scored_by_letter) for example in test.usable
    ]
    label_prompts = [(prompt, example.text) for (prompt, _), example in zip(fitting, test.usable, strict=True)]

    def report(done: int) -> None:
        if signals.received:
            raise Stopped("stopped by a signal; run the same command to repeat this test set")
        progress.step(test.name, done, len(label_prompts), None)

    with deferred():
        scores = score_labels(client, label_prompts, report)
        return ModelAnswers(scores, sum(is_shortened for _, is_shortened in fitting))


def _fitting_prompt(
    example: ClassificationExample, labels: tuple[str, ...], client: ModelClient, *, scored_by_letter: bool
) -> tuple[LabelPrompt, bool]:
    """A label prompt with as much of the passage as the model's context length allows, and whether that is not all."""
    max_tokens, passage = client.max_context - 1, example.passage  # one token is generated
    while True:
        text = f"{passage}\n\n{example.text}" if passage else example.text
        prompt = LabelPrompt(text, example.options or labels, scored_by_letter=scored_by_letter)
        if not passage:
            return prompt, passage != example.passage
        tokens = client.count_tokens(prompt.messages_and_choices(range(len(prompt.options)))[0])
        if tokens <= max_tokens:
            return prompt, passage != example.passage
        passage = passage[: int(len(passage) * max_tokens / tokens * _SHORTENING)]
