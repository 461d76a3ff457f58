"""From a completion's text to accepted examples, and rejects with a reason each.

The grammar makes most of this unnecessary; what it cannot say is checked here: the answer is
one of the options, options differ, nothing is blank, nothing copies its parent. A truncated
array still gives its complete items.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from datacreate.tasks.example import Example, Json, texts_in
from datacreate.tasks.format import Rule, TaskFormat, holds
from datacreate.tasks.layout import Layout, Malformed

MOST_REJECT_TEXT = 400
"""Characters of a reject's text that are kept."""


class Reason(StrEnum):
    """Why something a model wrote is not in the training set."""

    NO_ANSWER = "no_answer"  # the engine failed, or nothing came back
    UNPARSABLE = "unparsable"  # not JSON
    TRUNCATED = "truncated"  # cut off at max_tokens
    SCHEMA = "schema"  # not valid under the format
    BLANK = "blank"  # a text without a letter or digit
    GARBLED = "garbled"  # control characters, halves of characters
    ANSWER_NOT_IN_OPTIONS = "answer_not_in_options"
    ANSWER_NOT_IN_CONTEXT = "answer_not_in_context"
    REPEATED_OPTIONS = "repeated_options"
    COPY = "copy"  # repeats its parent or the formatting example
    DUPLICATE = "duplicate"  # repeats an accepted example
    OVER_QUOTA = "over_quota"  # its label has all the examples it may have
    SURPLUS = "surplus"  # good, but the count was reached


_REASON_OF_RULE = {
    Rule.ANSWER_IN_OPTIONS: Reason.ANSWER_NOT_IN_OPTIONS,
    Rule.ANSWER_IN_CONTEXT: Reason.ANSWER_NOT_IN_CONTEXT,
    Rule.OPTIONS_DIFFER: Reason.REPEATED_OPTIONS,
}


@dataclass(frozen=True)
class Reject:
    """One thing that was written and not accepted."""

    reason: Reason
    text: str


@dataclass(frozen=True)
class Candidate:
    """A valid example, and the normalised text by which repeats are found."""

    example: Example
    key: str


_SPACES = re.compile(r"[\W_]+")
_THINKING = re.compile(r"^.*?</think>", re.DOTALL)
_GARBLED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffd]")


def normalised(text: str) -> str:
    """The text without case, punctuation, spacing and Unicode variants: what "the same" means.

    A text of nothing but symbols is kept as it is, so that two of them can differ.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _SPACES.sub(" ", text.casefold()).strip() or text.strip()


def read_completion(
    text: str, layout: Layout, count: int, *, truncated: bool, salvage: bool = True
) -> list[Candidate | Reject]:
    """What the model wrote, item by item in order.

    `count` is how many examples were asked for, `truncated` whether the text was cut off. Without
    `salvage` (the paper's way) an array that is not whole is lost whole.
    """
    body = _THINKING.sub("", text, count=1) if "</think>" in text else text
    start = body.find("[")
    if start < 0:
        return [Reject(Reason.TRUNCATED if truncated else Reason.UNPARSABLE, capped(text))]
    items, whole = _items(body[start:])
    results: list[Candidate | Reject] = []
    if whole or salvage:
        results = [judge(item, layout) for item in items[:count]]
    if not whole:
        results.append(Reject(Reason.TRUNCATED if truncated else Reason.UNPARSABLE, capped(body)))
    return results


def _items(body: str) -> tuple[list[Json], bool]:
    """The items of a JSON array, and whether the array is whole."""
    decoder = json.JSONDecoder()
    try:
        value, _ = decoder.raw_decode(body)
        return (value, True)
    except ValueError:
        return (list(_complete_items(body, decoder)), False)


def _complete_items(body: str, decoder: json.JSONDecoder) -> Iterator[Json]:
    at = 1
    while at < len(body):
        at += len(body[at:]) - len(body[at:].lstrip(" \t\r\n,"))
        try:
            item, at = decoder.raw_decode(body, at)
        except ValueError:
            return
        yield item


def judge(item: Json, layout: Layout) -> Candidate | Reject:
    """One written item as a valid example, or a reject that says why it is none."""
    format = layout.format
    try:
        values = layout.read(item)
    except (Malformed, TypeError):
        return Reject(Reason.SCHEMA, capped(item))
    reason = fault(values, format)
    if reason is not None:
        return Reject(reason, capped(item))
    return Candidate(Example(values), normalised(format.text_of(values)))


def fault(values: Mapping[str, Json], format: TaskFormat) -> Reason | None:
    """The first reason against an example taken by itself; None if it is valid."""
    if not format.validator.is_valid(values):
        return Reason.SCHEMA
    for written in texts_in(values):
        if _GARBLED.search(written):
            return Reason.GARBLED
        if not written or written.isspace():
            return Reason.BLANK
    for rule in format.rules:
        if not holds(rule, format.roles, values):
            return _REASON_OF_RULE[rule]
    return None


def capped(value: Json) -> str:
    """A reject's text: JSON unless it is a string, cut to `MOST_REJECT_TEXT` characters, safe to print."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > MOST_REJECT_TEXT:
        text = text[:MOST_REJECT_TEXT] + "…"
    return text.encode("utf-8", "replace").decode("utf-8")
