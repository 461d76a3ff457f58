"""Shared by the tests of verification: texts with a hidden right answer, writers and verifiers.

The right answer follows from the hash of the text: a writer can hit it as often as a test wants, and a
verifier can know it without seeing the label.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datacreate.engines.request import Completion, Request
from tests.support.making import NLI, NLI_LABELS, examples, make
from tests.support.scripted import Script, ScriptedClient, written

SURE = 0.9
"""The probability that `knowing` gives the right choice."""

LABELS = NLI_LABELS["label"].split(",")
YES_NO = ["yes", "no"]
THREE_LABELS: dict[str, Any] = {"example": NLI, "labels": NLI_LABELS}
TWO_LABELS: dict[str, Any] = {"example": {**NLI, "label": "yes"}, "labels": {"label": "yes,no"}}
FALLBACK: dict[str, Any] = {**TWO_LABELS, "count": 80, "verify": "drop", "label_noise_check": 0.9}
"""With `writing(0.5, YES_NO)`: the labels are noise, so the run falls back to pseudo-labels."""

_OPTION = re.compile(r"^[A-Z]\. (.*)$", re.MULTILINE)


def hash_of(*texts: str) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(texts).encode()).digest()[:6], "big")


def truth(text: str, choices: Sequence[str]) -> str:
    """The right one of these choices, whatever their order."""
    return min(choices, key=lambda choice: hash_of(text, choice))


def writing(right: float, labels: Sequence[str] = ()) -> Script:
    """Writes valid items of which this share has the right answer.

    Without `labels` an item is a question with the right option first; with them it is two texts, after a
    label if one is to be written.
    """

    def script(request: Request) -> Completion:
        rng = random.Random(f"{request.id}:{request.messages}")
        items = written(request, rng)
        for item in items:
            is_right = rng.random() < right
            if not labels:
                question, options = item
                answer = truth(question, options)
                options.sort(key=lambda option: (option == answer) != is_right)
            elif len(item) == 3:
                while (truth(f"{item[1]}\n\n{item[2]}", labels) == item[0]) != is_right:
                    item[2] = f"word {rng.randrange(10**6)}"
        text = json.dumps(items)
        return Completion(request.id, text, "stop", 50, len(text) // 4)

    return script


def asked(request: Request) -> tuple[str, list[str]]:
    """The text of a scoring request, and its choices as texts (not as letters)."""
    content = request.messages[-1]["content"]
    if "Answer with one of: " in request.messages[0]["content"]:
        return content, list(request.choices)
    return content.split("\n\n")[0], _OPTION.findall(content)


def scored(request: Request, weights: Sequence[float]) -> Completion:
    total = sum(weights)
    return Completion(request.id, "", "stop", 30, 0, None, tuple(weight / total for weight in weights))


def knowing(request: Request) -> Completion:
    """A verifier that knows the right answer."""
    text, choices = asked(request)
    right = truth(text, choices)
    rest = (1 - SURE) / (len(choices) - 1)
    return scored(request, [SURE if choice == right else rest for choice in choices])


def guessing(request: Request) -> Completion:
    """A verifier that knows nothing, but always gives a text the same scores."""
    text, choices = asked(request)
    return scored(request, [1 + hash_of(text, "a guess", choice) % 1000 for choice in choices])


def biased(knows: float) -> Script:
    """A verifier that gives the labels 0.42, 0.3 and 0.28, and a little more to the right one."""

    def scorer(request: Request) -> Completion:
        text, choices = asked(request)
        right = truth(text, choices)
        weights = dict(zip(LABELS, (0.42, 0.3, 0.28), strict=True))
        return scored(request, [weights[choice] + knows * (choice == right) for choice in choices])

    return scorer


def failing(request: Request) -> Completion:
    """Knows the right answer, but fails for a quarter of the texts."""
    text, _ = asked(request)
    if hash_of(text, "fails") % 4 == 0:
        return Completion(request.id, "", "error", 0, 0, "the request was lost")
    return knowing(request)


def verified(
    run_dir: Path, model: str, writer: Script | ScriptedClient, scorer: Script = knowing, **changes: Any
) -> tuple[dict[str, Any], list[str]]:
    """Run `create` with one scripted client that writes and verifies; the summary and the messages."""
    client = writer if isinstance(writer, ScriptedClient) else ScriptedClient(writer, scorer=scorer)
    messages: list[str] = []
    summary = make(run_dir, model, client, notify=messages.append, **({"verify": "drop"} | changes))
    return summary, messages


def is_right(values: dict[str, Any], labels: Sequence[str] = LABELS) -> bool:
    """Whether the example has the right answer."""
    if "options" in values:
        return truth(values["question"], values["options"]) == values["label"]
    return truth(f"{values['premise']}\n\n{values['hypothesis']}", labels) == values["label"]


def labels_in(run_dir: Path) -> Counter[str]:
    return Counter(example["label"] for example in examples(run_dir))
