"""A question without its answer: how a model is asked what it holds for right.

Verification asks so of what was just written, zero-shot evaluation of a test set's rows. The model
writes nothing: the engine scores the choices. The order in which options are shown sways small
models, so each question is asked in several orders and the probabilities are averaged.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from datacreate.formats.example import Json, canonical_json, dotted, field_at
from datacreate.formats.roles import Rule, answer_text
from datacreate.formats.schema_utils import schema_at
from datacreate.formats.task_format import TaskFormat
from datacreate.prompts.generation import Message

_LETTER = "Answer with the letter of the right option."

TURNS = 2
"""Orders in which each question is asked."""

MOST_LETTERED = len(ascii_uppercase)
"""Options that can be told apart by letters."""


@dataclass(frozen=True)
class BlindQuestion:
    """What is shown of an example, and the answers it may have.

    Options of its own are lettered, and the letter is asked for in the system's words, which stand in
    the place of a chat template's own: 60 tokens a question where it takes 78 to ask after the options
    (CommonsenseQA's train rows, 300: Qwen2.5-Coder-1.5B has 65 % right so, 63 % then). Labels that all
    examples share are asked for by name (CREAK's train rows, 200: the 1.5B tells true from false at AUC
    0.81 either way, the 0.5B at 0.66 by name and 0.55 by letter, which takes more tokens too).
    """

    shown: str
    options: tuple[str, ...]
    lettered: bool

    def prompt(self, order: Sequence[int]) -> tuple[list[Message], tuple[str, ...]]:
        """The messages with the options in this order, and the choices to score, in the same order."""
        options = [self.options[place] for place in order]
        if self.lettered:
            choices = tuple(ascii_uppercase[: len(options)])
            listed = "\n".join(f"{letter}. {option}" for letter, option in zip(choices, options, strict=True))
            user = {"role": "user", "content": f"{self.shown}\n\n{listed}"}
            return [{"role": "system", "content": _LETTER}, user], choices
        asked = f"Answer with one of: {', '.join(options)}."
        return [{"role": "user", "content": f"{self.shown}\n\n{asked}"}], tuple(options)

    def placed(self, order: Sequence[int], scores: Sequence[float]) -> tuple[float, ...]:
        """Scores of choices shown in `order` as probabilities of the options in their own order."""
        own = [0.0] * len(self.options)
        for place, score in zip(order, scores, strict=True):
            own[place] = score
        return tuple(own)


def mean(turns: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The probabilities averaged over the turns."""
    return tuple(sum(column) / len(turns) for column in zip(*turns, strict=True))


def two_orders(options: int, seed: str) -> tuple[tuple[int, ...], ...]:
    """A seeded order of so many options, and its reverse, so that every two stand both ways round."""
    order = random.Random(seed).sample(range(options), options)
    return tuple(order), tuple(reversed(order))


def can_be_asked(format: TaskFormat, *, lettered: bool = False) -> bool:
    """Whether examples of a bound format have a closed set of answers, and enough letters."""
    if format.roles.answer is None:
        return False
    if format.labels:
        return not lettered or len(format.labels) <= MOST_LETTERED
    options = format.roles.options
    if options is None or not format.options_vary or Rule.ANSWER_IN_OPTIONS not in format.rules:
        return False
    return bool(schema_at(format.schema, options).get("maxItems", 0) <= MOST_LETTERED)


def choices_of(format: TaskFormat, values: Mapping[str, Json]) -> list[Json]:
    """The answers that an example may have, as its answer field holds them; none if it is free text."""
    if format.roles.answer is None:
        return []
    if format.labels:
        return list(format.labels)
    if format.options_vary and format.roles.options:
        return list(field_at(values, format.roles.options))
    return []


def blind_question(format: TaskFormat, values: Mapping[str, Json], *, lettered: bool) -> BlindQuestion | None:
    """The question that a valid example asks; None if it has no closed set of answers.

    With `lettered` labels are lettered too: for a model that cannot tell their first tokens apart.
    """
    choices = choices_of(format, values)
    answer = format.roles.answer
    if not choices or answer is None:
        return None
    own = not format.labels
    if (own or lettered) and len(choices) > MOST_LETTERED:
        return None
    options = tuple(map(answer_text, choices))
    return BlindQuestion(_shown(format, values), options, own or lettered)


def assigned_label(format: TaskFormat, values: Mapping[str, Json]) -> int:
    """Which of `choices_of` is the example's answer."""
    assert format.roles.answer is not None, "asked only of formats that have one"
    answer, choices = field_at(values, format.roles.answer), choices_of(format, values)
    if format.labels:
        return [canonical_json(choice) for choice in choices].index(canonical_json(answer))
    # The rule answer_in_options overlooks type and case.
    right, texts = answer_text(answer), [answer_text(choice) for choice in choices]
    if right in texts:
        return texts.index(right)
    return [text.casefold() for text in texts].index(right.casefold())


def answered(format: TaskFormat, values: Mapping[str, Json], choice: int) -> dict[str, Json]:
    """The example with another of its choices as its answer."""
    assert format.roles.answer is not None, "asked only of formats that have one"
    chosen = choices_of(format, values)[choice]
    if not format.labels and isinstance(field_at(values, format.roles.answer), str):
        chosen = answer_text(chosen)  # numbers to choose from may have an answer in words
    return _with(dict(values), format.roles.answer, chosen)


def _with(values: Mapping[str, Json], path: Sequence[str], value: Json) -> dict[str, Json]:
    inner = value if len(path) == 1 else _with(values[path[0]], path[1:], value)
    return {**values, path[0]: inner}


def _shown(format: TaskFormat, values: Mapping[str, Json]) -> str:
    """Passage and question, or, where the format has no question, every field but the answer."""
    roles, answer = format.roles, format.roles.answer
    assert answer is not None, "asked only of formats that have one"
    if roles.question is not None:
        passage = field_at(values, roles.context) if roles.context else None
        question = str(field_at(values, roles.question)) + _named_options(format, values)
        return f"{passage}\n\n{question}" if isinstance(passage, str) and passage.strip() else question
    hidden = [answer] + ([roles.options] if roles.options and not _named_options(format, values) else [])
    kept = json.loads(canonical_json(dict(values)))
    kept = {name: kept[name] for name in values}  # in the declared order
    for path in hidden:
        _drop(kept, path)
    return f"{json.dumps(kept, ensure_ascii=False)}\n\nWhat is its {dotted(answer)}?"


def _named_options(format: TaskFormat, values: Mapping[str, Json]) -> str:
    """Options of its own where the answer is one of the labels that stand for them: a line each."""
    if not (format.labels and format.options_vary and format.roles.options):
        return ""
    options = [answer_text(option) for option in field_at(values, format.roles.options)]
    if len(options) != len(format.labels):
        return "".join(f"\n{option}" for option in options)
    named = zip(format.labels, options, strict=True)
    return "".join(f"\n{answer_text(label)}. {option}" for label, option in named)


def _drop(values: Json, path: Sequence[str]) -> None:
    for key in path[:-1]:
        values = values[key]
    values.pop(path[-1], None)
