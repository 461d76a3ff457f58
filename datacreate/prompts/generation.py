"""The prompt of one request: (format, parent, how many) -> chat messages.

The wording was chosen by measuring: of what Qwen2.5-Coder-0.5B writes, how much is valid and
new (scripts/perf/creation.py measures the whole).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from datacreate.formats.example import Example, dotted
from datacreate.formats.roles import answer_text
from datacreate.formats.serialization import Layout
from datacreate.formats.task_format import TaskFormat

Message = dict[str, str]
"""One chat message: `role` and `content`."""


def chat_prompt(layout: Layout, parent: Example, count: int) -> list[Message]:
    """The messages that ask for `count` new examples after the pattern of `parent`.

    The example is shown without spaces between its parts, since that is how the grammar has the
    answer written: shown otherwise, a small model is pushed off its pattern at every comma (of what
    Qwen2.5-Coder-0.5B wrote after 60 CommonsenseQA rows, 72 % was valid and new this way, 55 % the
    other; as a list of one, 80 % against 76 % after 120 rows).
    """
    shown = json.dumps(layout.write(parent), ensure_ascii=False, separators=(",", ":"))
    if layout.style == "keyed":
        return _paper_prompt(shown, count)
    options = " All options of an example differ from each other." if layout.format.options_vary else ""
    user = (
        f"Here is a JSON array with one example, written as {layout.shape()}:\n[{shown}]\n\n"
        f"Write a JSON array of {count} more examples in the same way, about other topics.{options}"
        f"{_closed(layout.format)}{_for_all_labels(layout)}"
    )
    return [
        {"role": "system", "content": "You write data for training language models."},
        {"role": "user", "content": user},
    ]


def without_system(messages: Sequence[Mapping[str, str]]) -> list[Message]:
    """The messages for a chat template without a system role: what it would say leads the user's text."""
    if not messages or messages[0]["role"] != "system":
        return [dict(message) for message in messages]
    system, first, *rest = messages
    leading = {"role": "user", "content": f"{system['content']}\n\n{first['content']}"}
    return [leading, *(dict(message) for message in rest)]


def plain_prompt(messages: Sequence[Mapping[str, str]]) -> str:
    """The messages as one text to be gone on with, for a base model, which knows no conversation."""
    return "\n\n".join([*(message["content"] for message in messages), "Answer:\n"])


def _closed(format: TaskFormat) -> str:
    """Where questions, called that, have fixed answers: that each must be a question for them.

    A small model forgets it from example to example: of 450 rows that Qwen2.5-Coder-0.5B wrote from a
    yes/no question with a passage (BioASQ, tree), 4 % asked one without this sentence, 59 % with it.
    """
    question, labels = format.roles.question, format.labels
    if not (question and question[-1] == "question" and labels):
        return ""
    names = list(map(answer_text, labels))
    either = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f" Each {dotted(question)} is one that {either} alone answers."


def _for_all_labels(layout: Layout) -> str:
    """Where the text comes first nobody asks for a label: all are asked for at once."""
    answer, labels = layout.format.roles.answer, layout.format.labels
    if not (layout.pseudo_labels and answer and labels):
        return ""
    return (
        f" The {dotted(answer)} of each is one of {', '.join(map(answer_text, labels))}, each equally often."
    )


def _paper_prompt(shown: str, count: int) -> list[Message]:
    """A prompt in the manner of the paper: the example as an object, all answers to be different."""
    user = (
        f"You generate question-answering data. Below is one example in JSON. Generate {count} more examples "
        "with the same keys and the same format, all with different answers, as one JSON array.\n\n"
        f"Example:\n{shown}"
    )
    return [{"role": "user", "content": user}]
