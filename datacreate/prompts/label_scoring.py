"""Builds the label-scoring prompt: a question without its answer, and the choices that the engine scores.

Verification asks it about generated examples, zero-shot evaluation about rows of a test set. The model
generates no text. Small models prefer some positions, so each question is asked with its options in two
orders, and the probabilities are averaged.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from datacreate.formats.example import FieldPath, Json, canonical_json, dotted, field_at
from datacreate.formats.schema_utils import schema_at
from datacreate.formats.task_format import Rule, TaskFormat, answer_text
from datacreate.prompts.generation import Message

_SYSTEM_MESSAGE = "Answer with the letter of the right option."

NUM_PERMUTATIONS = 2
"""Orders in which each question is asked."""

MAX_LETTERED_OPTIONS = len(ascii_uppercase)


@dataclass(frozen=True)
class LabelQuestion:
    """A question and its possible answers.

    An example's own options get letters, and the system prompt asks for the letter; this takes fewer tokens
    than a request after the options, and more answers are right. Labels that all examples share are asked for
    by name, which small models do better than letters.
    """

    text: str
    options: tuple[str, ...]
    lettered: bool

    def prompt(self, order: Sequence[int]) -> tuple[list[Message], tuple[str, ...]]:
        """The messages with the options in this order, and the choices to score, in the same order."""
        options = [self.options[index] for index in order]
        if self.lettered:
            choices = tuple(ascii_uppercase[: len(options)])
            lines = "\n".join(f"{letter}. {option}" for letter, option in zip(choices, options, strict=True))
            user = {"role": "user", "content": f"{self.text}\n\n{lines}"}
            return [{"role": "system", "content": _SYSTEM_MESSAGE}, user], choices
        request = f"Answer with one of: {', '.join(options)}."
        return [{"role": "user", "content": f"{self.text}\n\n{request}"}], tuple(options)

    def unpermute(self, order: Sequence[int], scores: Sequence[float]) -> tuple[float, ...]:
        """The scores of choices shown in `order`, in the order of `options`."""
        original = [0.0] * len(self.options)
        for index, score in zip(order, scores, strict=True):
            original[index] = score
        return tuple(original)


def average(scores: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The probability of each option, averaged over the permutations."""
    return tuple(sum(column) / len(scores) for column in zip(*scores, strict=True))


def option_permutations(options: int, seed: str) -> tuple[tuple[int, ...], ...]:
    """A random order and its reverse, so that each pair of options appears in both orders."""
    order = random.Random(seed).sample(range(options), options)
    return tuple(order), tuple(reversed(order))


def can_score_labels(format: TaskFormat, *, lettered: bool = False) -> bool:
    """Whether the examples of a bound format have a closed set of answers, and few enough for letters."""
    if format.roles.answer is None:
        return False
    if format.labels:
        return not lettered or len(format.labels) <= MAX_LETTERED_OPTIONS
    options = format.roles.options
    if options is None or not format.options_vary or Rule.ANSWER_IN_OPTIONS not in format.rules:
        return False
    return bool(schema_at(format.schema, options).get("maxItems", 0) <= MAX_LETTERED_OPTIONS)


def answer_choices(format: TaskFormat, values: Mapping[str, Json]) -> list[Json]:
    """The possible answers of an example, as the answer field has them; [] for free text."""
    if format.roles.answer is None:
        return []
    if format.labels:
        return list(format.labels)
    if format.options_vary and format.roles.options:
        return list(field_at(values, format.roles.options))
    return []


def label_question(format: TaskFormat, values: Mapping[str, Json], *, lettered: bool) -> LabelQuestion | None:
    """The question of a valid example; None if it has no closed set of answers.

    `lettered`: use letters for fixed labels too, for a model whose labels share their first token.
    """
    choices = answer_choices(format, values)
    if not choices or format.roles.answer is None:
        return None
    lettered = lettered or not format.labels
    if lettered and len(choices) > MAX_LETTERED_OPTIONS:
        return None
    return LabelQuestion(_question_text(format, values), tuple(map(answer_text, choices)), lettered)


def assigned_label(format: TaskFormat, values: Mapping[str, Json]) -> int:
    """The index of the example's answer in `answer_choices`."""
    assert format.roles.answer is not None, "the caller checks that the format has an answer"
    answer, choices = field_at(values, format.roles.answer), answer_choices(format, values)
    if format.labels:
        return [canonical_json(choice) for choice in choices].index(canonical_json(answer))
    # The rule answer_in_options ignores type and case.
    text, texts = answer_text(answer), [answer_text(choice) for choice in choices]
    if text in texts:
        return texts.index(text)
    return [text.casefold() for text in texts].index(text.casefold())


def with_answer(format: TaskFormat, values: Mapping[str, Json], choice: int) -> dict[str, Json]:
    """The example with another of its choices as the answer."""
    assert format.roles.answer is not None, "the caller checks that the format has an answer"
    answer = answer_choices(format, values)[choice]
    if not format.labels and isinstance(field_at(values, format.roles.answer), str):
        answer = answer_text(answer)  # the options may be numbers and the answer a string
    return _with_value(dict(values), format.roles.answer, answer)


def _with_value(values: Mapping[str, Json], path: FieldPath, value: Json) -> dict[str, Json]:
    inner = value if len(path) == 1 else _with_value(values[path[0]], path[1:], value)
    return {**values, path[0]: inner}


def _question_text(format: TaskFormat, values: Mapping[str, Json]) -> str:
    """Context and question; without a question field, the JSON of all fields but the answer."""
    roles, answer = format.roles, format.roles.answer
    assert answer is not None, "the caller checks that the format has an answer"
    named_options = _named_options(format, values)
    if roles.question is not None:
        context = field_at(values, roles.context) if roles.context else None
        question = str(field_at(values, roles.question)) + named_options
        return f"{context}\n\n{question}" if isinstance(context, str) and context.strip() else question
    shown = json.loads(canonical_json(dict(values)))
    shown = {name: shown[name] for name in values}  # canonical JSON sorts the keys
    for path in (answer, None if named_options else roles.options):
        if path:
            field_at(shown, path[:-1]).pop(path[-1], None)
    return f"{json.dumps(shown, ensure_ascii=False)}\n\nWhat is its {dotted(answer)}?"


def _named_options(format: TaskFormat, values: Mapping[str, Json]) -> str:
    """The example's own options, one per line, if the fixed labels stand for them (A, B, C)."""
    if not (format.labels and format.options_vary and format.roles.options):
        return ""
    options = [answer_text(option) for option in field_at(values, format.roles.options)]
    if len(options) != len(format.labels):
        return "".join(f"\n{option}" for option in options)
    pairs = zip(format.labels, options, strict=True)
    return "".join(f"\n{answer_text(label)}. {option}" for label, option in pairs)
