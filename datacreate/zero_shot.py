"""The generator itself answering a test set: what its created data has to be compared with.

Each row is one request under a grammar that allows the options' letters, or the labels, alone;
greedy, so that it says what it holds most likely.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Protocol

from datacreate.checkpoints import Checkpoint, EngineSettings, resolve
from datacreate.engines.base import Completion, Engine, Messages, Request, Sampling
from datacreate.engines.selftest import prove_grammar
from datacreate.errors import Stopped
from datacreate.finetuning.evaluate import TestSet, judged, keep, known_evaluation, read_test_set
from datacreate.finetuning.record import Arm, Evaluation
from datacreate.finetuning.task import Question, Task
from datacreate.signals import Signals, caught_signals

ANSWER_TOKENS = 16
"""Room for a label as JSON; a letter takes two or three."""

_POLL_SECONDS = 0.5

EngineFactory = Callable[[Checkpoint, Path], Engine]


class Progress(Protocol):
    """Whoever wants to know how it is going."""

    def note(self, text: str) -> None:
        """A line worth reading, once."""

    def step(self, what: str, done: int, total: int, score: float | None) -> None:
        """After each answer about `what`."""


def answer_zero_shot(
    model: str,
    names: Sequence[str],
    out: Path,
    progress: Progress,
    *,
    split: str = "test",
    engine_factory: EngineFactory | None = None,
) -> list[Evaluation]:
    """Have a model answer the benchmarks `names`; evaluations are kept in `out`/evaluations.

    Those that are there already are read. Raises CheckpointError, BenchmarkError or EngineError;
    Stopped after a signal: finished test sets are kept.
    """
    checkpoint = resolve(model, "instruct")
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
                    engine = (engine_factory or _vllm)(checkpoint, out / "engine.log")
                    stack.callback(engine.close)
                    progress.note(f"loading {checkpoint.name}")
                    engine.start()
                    prove_grammar(engine)
                known = _measure(engine, test, checkpoint, place, progress, signals)
            found.append(known)
    return found


def _vllm(checkpoint: Checkpoint, log: Path) -> Engine:
    from datacreate.engines.vllm import VllmEngine

    settings = checkpoint.preset.engine if checkpoint.preset else EngineSettings()
    template = dict(checkpoint.preset.chat_template) if checkpoint.preset else {}
    return VllmEngine(checkpoint.path, settings, template, log)


def _measure(
    engine: Engine, test: TestSet, checkpoint: Checkpoint, place: Path, progress: Progress, signals: Signals
) -> Evaluation:
    requests, truncated = _requests(engine, test)
    said: dict[int, str] = {}
    waiting = iter(requests)
    flying = 0
    with signals.held():
        while len(said) < len(requests):
            if signals.received:
                raise Stopped("stopped by a signal; run the same command to go on with this test set")
            while flying < engine.capacity and (request := next(waiting, None)) is not None:
                engine.submit(request)
                flying += 1
            for completion in engine.poll(_POLL_SECONDS):
                said[completion.request_id] = _said(completion)
                flying -= 1
                progress.step(test.benchmark.name, len(said), len(requests), None)
    choices = _choices(test.task)
    answers = [
        [float(choice == said[request.id]) for choice in choices] if said[request.id] in choices else None
        for request in requests
    ]
    predictions, figures = judged(test, answers, truncated)
    evaluation = Evaluation(
        benchmark=test.benchmark.name,
        split=test.split,
        head=test.task.head,
        digest=test.digest,
        arm=Arm(
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


def _said(completion: Completion) -> str:
    try:
        return str(json.loads(completion.text))
    except ValueError:
        return ""  # an error, or cut off: no answer


def _choices(task: Task) -> Sequence[str]:
    """What the grammar allows: a letter per option, or the labels."""
    return ascii_uppercase[: task.classes] if task.head == "multiple_choice" else task.names


def _requests(engine: Engine, test: TestSet) -> tuple[list[Request], int]:
    """A request for each row that can be asked, and of how many the passage was cut at its end to fit."""
    choices = _choices(test.task)
    schema = json.dumps({"enum": list(choices)})
    room = engine.max_context - ANSWER_TOKENS
    requests: list[Request] = []
    truncated = 0
    for number, question in enumerate(test.asked):
        whole = question
        messages = _messages(question, choices)
        while question.context and (length := engine.count_tokens(messages)) > room:
            kept = int(len(question.context) * room / length * 0.95)
            question = replace(question, context=question.context[:kept])
            messages = _messages(question, choices)
        truncated += question is not whole
        requests.append(
            Request(number, messages, schema, Sampling(max_tokens=ANSWER_TOKENS, temperature=0.0))
        )
    return requests, truncated


def _messages(question: Question, choices: Sequence[str]) -> Messages:
    parts = [question.context] if question.context else []
    parts.append(question.text)
    if question.options:
        listed = zip(choices, question.options, strict=True)
        parts.append("\n".join(f"{letter}. {option}" for letter, option in listed))
        parts.append("Which option is right? Answer with its letter.")
    else:
        parts.append(f"Answer with one of: {', '.join(choices)}.")
    return [{"role": "user", "content": "\n\n".join(parts)}]
