"""What the tests of verification share: texts with a hidden truth, who writes them, and who knows it.

The truth about a text is drawn from its hash, so that the writer can be made to hit it as often as
a test wants, and a verifier can read it off the prompt without being told the label.
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

from datacreate.create import create
from datacreate.engines.base import Completion, Request
from datacreate.runs.config import CreateConfig
from datacreate.runs.summary import RunStats
from tests.making import NLI, NLI_LABELS, SharedWords, examples, settings
from tests.scripted import Script, ScriptedEngine, written

SURE = 0.9
"""What a knowing verifier gives the right choice."""

LABELS = NLI_LABELS["label"].split(",")
DEALT: dict[str, Any] = {"example": NLI, "labels": NLI_LABELS}
TWO: dict[str, Any] = {"example": {**NLI, "label": "yes"}, "labels": {"label": "yes,no"}}
SWITCHING: dict[str, Any] = {**TWO, "count": 80, "label_noise_rows": 25, "verify": "drop"}

_NAMES = re.compile(r"^(.*)\n\nAnswer with one of: (.*)\.$", re.DOTALL)
_OPTION = re.compile(r"^[A-Z]\. (.*)$", re.MULTILINE)


def number_of(*texts: str) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(texts).encode()).digest()[:6], "big")


def truth(text: str, choices: Sequence[str]) -> str:
    """The right one of these choices about this text, in whatever order they stand."""
    return min(choices, key=lambda choice: number_of(text, choice))


def writing(knows: float, labels: Sequence[str] = ()) -> Script:
    """Obeys the schema; of what it writes so large a share holds the label or right option it should.

    Without `labels` each item is a question with the right option first; with them a label, if it
    has to be written, and two texts.
    """

    def script(request: Request) -> Completion:
        rng = random.Random(f"{request.id}:{request.messages}")
        items = written(request, rng)
        for item in items:
            right = rng.random() < knows
            if not labels:
                question, options = item
                answer = truth(question, options)
                options.sort(key=lambda option: (option == answer) != right)
            elif len(item) == 3:
                while (truth(f"{item[1]}\n\n{item[2]}", labels) == item[0]) != right:
                    item[2] = f"word {rng.randrange(10**6)}"
        text = json.dumps(items)
        return Completion(request.id, text, "stop", 50, len(text) // 4)

    return script


def asked(request: Request) -> tuple[str, list[str]]:
    """What a scoring request shows, and its choices as texts: behind each letter its option."""
    said = request.messages[-1]["content"]
    if match := _NAMES.match(said):
        return match[1], list(request.choices)
    return said.split("\n\n")[0], _OPTION.findall(said)


def scored(request: Request, weights: Sequence[float]) -> Completion:
    total = sum(weights)
    return Completion(request.id, "", "stop", 30, 0, None, tuple(weight / total for weight in weights))


def knowing(request: Request) -> Completion:
    """A verifier that knows the truth."""
    text, choices = asked(request)
    right = truth(text, choices)
    rest = (1 - SURE) / (len(choices) - 1)
    return scored(request, [SURE if choice == right else rest for choice in choices])


def guessing(request: Request) -> Completion:
    """A verifier that knows nothing, but holds to what it once said."""
    text, choices = asked(request)
    return scored(request, [1 + number_of(text, "a guess", choice) % 1000 for choice in choices])


def unsure(request: Request) -> Completion:
    """A verifier that leans a little, and is never sure."""
    text, choices = asked(request)
    return scored(request, [100 + number_of(text, "leans", choice) % 30 for choice in choices])


def failing(request: Request) -> Completion:
    """Knows the truth, but has no answer about some texts."""
    text, _ = asked(request)
    if number_of(text, "fails") % 4 == 0:
        return Completion(request.id, "", "error", 0, 0, "the request was lost")
    return knowing(request)


class Heard:
    """A `Progress` that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def notify(self, text: str) -> None:
        self.notes.append(text)

    def update(self, stats: RunStats, count: int, uncommitted: object) -> None: ...


def verified(
    run_dir: Path, model: str, writer: Script | ScriptedEngine, scorer: Script = knowing, **changes: Any
) -> tuple[dict[str, Any], list[str]]:
    """Run `create` with a scripted engine that writes and verifies; the summary, and the notes on the way."""
    engine = writer if isinstance(writer, ScriptedEngine) else ScriptedEngine(writer, scorer=scorer)
    config = CreateConfig.of(**settings(run_dir, model, **({"verify": "drop"} | changes)))
    heard = Heard()
    summary = create(config, progress=heard, engine_factory=lambda *_: engine, similarity=SharedWords())
    return summary, heard.notes


def is_true(values: dict[str, Any], labels: list[str] = LABELS) -> bool:
    """Whether the example's answer is the right one."""
    if "options" in values:
        return truth(values["question"], values["options"]) == values["label"]
    return truth(f"{values['premise']}\n\n{values['hypothesis']}", labels) == values["label"]


def labels_in(run_dir: Path) -> Counter[str]:
    return Counter(example["label"] for example in examples(run_dir))
