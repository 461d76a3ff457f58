"""Builds the generation prompt: (encoding, shown examples, number of examples) -> chat messages.

The wording was chosen by measurement; scripts/perf/creation.py repeats it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from datacreate.formats.example import Example, dotted, field_at
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
    passage: str | None = None  # source material


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
    options = " All options of an example differ from each other." if encoding.format.options_vary else ""
    user = (
        f"Here is a JSON array with one example, written as {encoding.describe()}:\n[{example}]\n\n"
        f"Write a JSON array of {count} more examples in the same way, about other topics.{options}"
        f"{_fixed_answers_sentence(encoding.format)}{_label_ratio_sentence(encoding, directions.label_ratio)}"
        f"{_layout_sentence(encoding.format, parent)}"
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
