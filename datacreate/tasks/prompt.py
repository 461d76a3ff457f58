"""The prompt of one request: (format, parent, how many) -> chat messages.

What is the same for every request of a run comes first, so that the engine's prefix cache
holds it; the parent comes last.
"""

from __future__ import annotations

import json

from datacreate.tasks.example import Example
from datacreate.tasks.layout import Layout

Message = dict[str, str]
"""One chat message: `role` and `content`."""


def chat_prompt(layout: Layout, parent: Example, count: int) -> list[Message]:
    """The messages that ask for `count` new examples after the pattern of `parent`."""
    shown = json.dumps(layout.write(parent), ensure_ascii=False)
    if layout.style == "keyed":
        return _paper_prompt(shown, count)
    system = (
        "You write data for training language models. You get one example and write new ones of the same kind: "
        "same task, language, style and difficulty, but each about a different topic, with its own wording."
    )
    user = (
        f"Write a JSON array of {count} new examples, each written as {layout.shape()}. "
        "Choose a different topic for each, far from the given one, and never repeat its text.\n"
        f"Given example: {shown}"
    )
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _paper_prompt(shown: str, count: int) -> list[Message]:
    """A prompt in the manner of the paper: the example as an object, all answers to be different."""
    user = (
        f"You generate question-answering data. Below is one example in JSON. Generate {count} more examples "
        "with the same keys and the same format, all with different answers, as one JSON array.\n\n"
        f"Example:\n{shown}"
    )
    return [{"role": "user", "content": user}]
