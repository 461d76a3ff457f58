"""Builds the generation prompt: (encoding, shown examples, number of examples) -> chat messages.

The wording was chosen by measurement; scripts/perf/creation.py repeats it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from datacreate.formats.example import Example, dotted, field_at, value_at
from datacreate.formats.rules import Rule
from datacreate.formats.schema_utils import fixed_labels, schema_at
from datacreate.formats.serialization import PromptEncoding
from datacreate.formats.task_format import TaskFormat

Message = dict[str, str]
"""A chat message: `role` and `content`."""


@dataclass(frozen=True)
class Directions:
    """What a request asks for besides the format."""

    instruction: str | None = None  # of the user, for all requests
    label_ratio: Mapping[str, float] | None = None  # shares that add up to 1; None if all labels are equal
    attributes: Mapping[str, str] = field(default_factory=dict)  # of this request
    passage: str | None = None  # of the user's documents: the context, or source material


def chat_prompt(
    encoding: PromptEncoding, shown: Sequence[Example], count: int, directions: Directions = Directions()
) -> list[Message]:
    """The messages that ask for `count` new examples similar to the first of `shown`, the parent; the others are
    further examples of the format.

    The example is shown without spaces, as the grammar has the response written. With spaces, a small model deviates
    from its preferred tokens at every comma, and fewer of its examples are valid and new.
    """
    parent = shown[0]
    example = json.dumps(encoding.write(parent), ensure_ascii=False, separators=(",", ":"))
    if encoding.style == "keyed":
        return _paper_prompt(example, count)
    is_given = encoding.format.context_is_given
    text = (
        f"This is {'another' if is_given else 'a'} text:\n{directions.passage}\n\n"
        if directions.passage
        else ""
    )
    topics = "about this text" if directions.passage else "about other topics"
    options = " All options of an example differ from each other." if encoding.format.options_vary else ""
    user = (
        f"{_text_of(encoding.format, parent)}"
        f"Here is a JSON array with one example, written as {encoding.describe()}:\n[{example}]\n\n"
        f"{text}Write a JSON array of {count} more examples in the same way, {topics}.{options}"
        f"{_fixed_answers_sentence(encoding.format)}{_label_ratio_sentence(encoding, directions.label_ratio)}"
        f"{_layout_sentence(encoding.format, parent)}{_span_sentence(encoding.format)}"
    )
    return [
        {"role": "system", "content": "You write data for training language models."},
        {"role": "user", "content": user},
    ]


def merge_system_message(messages: Sequence[Mapping[str, str]]) -> list[Message]:
    """The messages for a chat template without a system role: its text starts the user message."""
    if not messages or messages[0]["role"] != "system":
        return [dict(message) for message in messages]
    system, first, *rest = messages
    merged = {"role": "user", "content": f"{system['content']}\n\n{first['content']}"}
    return [merged, *(dict(message) for message in rest)]


def _text_of(format: TaskFormat, example: Example) -> str:
    """The context of a shown example, if contexts are given: they are not written as part of an example."""
    return (
        f"This is a text:\n{value_at(example.values, format.roles.context)}\n\n"
        if format.context_is_given
        else ""
    )


def _layout_sentence(format: TaskFormat, parent: Example) -> str:
    """What one example does not show: which answer is better, how many turns there are, which functions."""
    roles = format.roles
    if roles.rejected and roles.answer:
        return f" The {roles.answer[-1]} answer is right and helpful, the {roles.rejected[-1]} one wrong or useless."
    if roles.turns:
        turns = schema_at(format.schema, roles.turns)["maxItems"] // 2
        return f" The user writes {turns} messages in each, and each gets an answer." if turns > 1 else ""
    if roles.tags:
        sets = (schema_at(format.schema, path)["items"] for path in roles.tags)
        names = (", ".join(map(str, fixed_labels(tags) or ())) for tags in sets)
        return f" Each example is one sentence, and each token has a tag: {'; '.join(filter(None, names))}."
    if roles.tools:
        tools = json.dumps(field_at(parent.values, roles.tools), ensure_ascii=False, separators=(",", ":"))
        return f" Each calls one of these functions: {tools}"
    return ""


def _fixed_answers_sentence(format: TaskFormat) -> str:
    """For an input named question with fixed labels: the question must be answerable with a label.

    Without this sentence, small models often write statements instead.
    """
    question, labels = (
        next((path for path in format.roles.inputs if path[-1] == "question"), None),
        format.labels,
    )
    if not (question and labels) or format.roles.tools:
        return ""
    names = list(map(str, labels))
    choices = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f" Each {dotted(question)} is one that {choices} alone answers."


def _span_sentence(format: TaskFormat) -> str:
    """Where a passage is given, what one example does not show: that the answer is a part of it."""
    is_span = format.context_is_given and Rule.ANSWER_IN_CONTEXT in format.rules
    return (
        f" Each {dotted(format.roles.answer or ())} is copied word for word from this text."
        if is_span
        else ""
    )


def _label_ratio_sentence(encoding: PromptEncoding, label_ratio: Mapping[str, float] | None) -> str:
    """With pseudo-labels no request asks for a given label, so the prompt says how frequent each is."""
    answer, labels = encoding.format.roles.answer, encoding.format.labels
    if not (encoding.pseudo_labels and answer and labels):
        return ""
    names = list(map(str, labels))
    if label_ratio is None:
        return f" The {dotted(answer)} of each is one of {', '.join(names)}, each equally often."
    shares = ", ".join(f"{name} for {label_ratio[name]:.0%}" for name in names if label_ratio[name])
    return f" The {dotted(answer)} of the examples is {shares} of them."


def _paper_prompt(shown: str, count: int) -> list[Message]:
    """The prompt of the paper: the example as an object, and a request for different answers."""
    user = (
        f"You generate question-answering data. Below is one example in JSON. Generate {count} more examples "
        "with the same keys and the same format, all with different answers, as one JSON array.\n\n"
        f"Example:\n{shown}"
    )
    return [{"role": "user", "content": user}]
