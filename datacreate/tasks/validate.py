"""From a completion's text to accepted examples, and rejects with a reason each.

The grammar makes most of this unnecessary; what it cannot say is checked here: the answer is
one of the options, options differ, nothing is blank, nothing copies its parent. A truncated
array still gives its complete items.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from datacreate.tasks.example import Example, Json, field_at, flaw_in
from datacreate.tasks.format import TaskFormat
from datacreate.tasks.layout import Layout, Malformed
from datacreate.tasks.normal import normalised
from datacreate.tasks.roles import Rule, holds

__all__ = [
    "Candidate",
    "Reason",
    "Reject",
    "candidate",
    "capped",
    "fault",
    "judge",
    "read_completion",
]

MOST_REJECT_TEXT = 400
"""Characters of a reject's text that are kept."""


class Reason(StrEnum):
    """Why something a model wrote is not in the training set."""

    NO_ANSWER = "no_answer"  # the engine failed, or nothing came back
    UNPARSABLE = "unparsable"  # not JSON
    TRUNCATED = "truncated"  # cut off at max_tokens
    SCHEMA = "schema"  # not valid under the format
    BLANK = "blank"  # nothing to see in a text, or nothing but punctuation in a question
    GARBLED = "garbled"  # control characters, halves of characters
    ECHO = "echo"  # the prompt's own words in place of a text: "wrong option"
    ANSWER_NOT_IN_OPTIONS = "answer_not_in_options"
    ANSWER_NOT_IN_CONTEXT = "answer_not_in_context"
    REPEATED_OPTIONS = "repeated_options"
    COPY = "copy"  # repeats its parent or the formatting example
    DUPLICATE = "duplicate"  # repeats an accepted example
    NEAR_DUPLICATE = "near_duplicate"  # differs from an accepted example in a few words
    SEMANTIC_DUPLICATE = "semantic_duplicate"  # says the same as an accepted example
    CONTAMINATED = "contaminated"  # repeats a row that is for testing
    DISAGREES = "disagrees"  # the verifier, asked blind, does not hold its answer for right
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
    because: str = ""  # what speaks against it: the row that it repeats, the verifier's figures


@dataclass(frozen=True)
class Candidate:
    """A valid example as the filters see it."""

    example: Example
    text: str  # what is compared: the question, else all free text
    key: str  # the same, normalised: by it exact repeats are found
    passage: str = ""  # the context; empty where the format has none


def candidate(values: Mapping[str, Json], format: TaskFormat) -> Candidate:
    """The candidate of a valid example of this format."""
    text, context = format.text_of(values), format.roles.context
    passage = field_at(values, context) if context else None
    return Candidate(Example(values), text, normalised(text), passage if isinstance(passage, str) else "")


_GARBLED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffd-\uffff]")
_VISIBLE = re.compile(r"[^\s\u00ad\u115f\u1160\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2800\u3164\ufeff]")
_WORD = re.compile(
    r"[^\W_]|[\u2190-\u2bff\U0001f000-\U0001faff]"
)  # a letter, a digit, or a sign that says something
_BEFORE_ITEM = re.compile(r"[ \t\r\n,]*")
_AFTER_ITEM = re.compile(r"[ \t\r\n]*[,\]]")
_DECODER = json.JSONDecoder()


def read_completion(
    text: str, layout: Layout, count: int, *, truncated: bool, salvage: bool = True
) -> list[Candidate | Reject]:
    """What the model wrote, item by item in order.

    `count` is how many examples were asked for, `truncated` whether the text was cut off. Without
    `salvage` (the paper's way) an array that is not whole is lost whole.
    """
    if not text.strip():
        return [Reject(Reason.NO_ANSWER, "")]
    body = _without_thinking(text)
    start = body.find("[")
    torn = Reject(Reason.TRUNCATED if truncated else Reason.UNPARSABLE, capped(text))
    if start < 0:
        return [torn]
    items, whole = _items(body[start:])
    results: list[Candidate | Reject] = []
    if whole or salvage:
        results += [judge(item, layout) for item in items[:count]]
        results += [Reject(Reason.SURPLUS, capped(item)) for item in items[count:]]
    if not whole:
        results.append(torn)
    return results or [Reject(Reason.NO_ANSWER, capped(text))]


def _without_thinking(text: str) -> str:
    """The text after a reasoning model's thinking, whose opening tag may be in the prompt."""
    if "</think>" in text:
        if text.lstrip().startswith("[") and _is_json(text):
            return text  # the tag is inside an answer
        return text.partition("</think>")[2]
    return text.partition("<think>")[0] if text.lstrip().startswith("<think>") else text


def _is_json(text: str) -> bool:
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _items(body: str) -> tuple[list[Json], bool]:
    """The items of a JSON array, and whether the array is whole."""
    try:
        value, _ = _DECODER.raw_decode(body)
        return (value, True)
    except (ValueError, RecursionError):
        return (list(_complete_items(body)), False)


def _complete_items(body: str) -> Iterator[Json]:
    at = 1
    while True:
        start = _BEFORE_ITEM.match(body, at)
        assert start  # it matches nothing, too
        try:
            item, at = _DECODER.raw_decode(body, start.end())
        except (ValueError, RecursionError):
            return
        if not _AFTER_ITEM.match(body, at) and not (at == len(body) and isinstance(item, list | dict | str)):
            return  # 12 may be the beginning of 123
        yield item


def judge(item: Json, layout: Layout) -> Candidate | Reject:
    """One written item as a valid example, or a reject that says why it is none."""
    try:
        values = layout.read(item)
        reason = fault(values, layout)
    except (Malformed, RecursionError):
        return Reject(Reason.SCHEMA, capped(item))
    if reason is not None:
        return Reject(reason, capped(item))
    found = candidate(values, layout.format)
    return found if _WORD.search(found.text) else Reject(Reason.BLANK, capped(item))


def fault(values: Mapping[str, Json], layout: Layout) -> Reason | None:
    """The first reason against an example taken by itself; None if it is valid."""
    format = layout.format
    if not format.validator.is_valid(values):
        return Reason.SCHEMA
    for written in format.free_texts(values):
        if _GARBLED.search(written):
            return Reason.GARBLED
        if not _VISIBLE.search(written):
            return Reason.BLANK
        if layout.echo.fullmatch(written):
            return Reason.ECHO
    if format.holds_numbers and flaw_in(values):
        return Reason.SCHEMA  # NaN, for example, which Python reads as JSON
    for rule in format.rules:
        if not holds(rule, format.roles, values):
            return _REASON_OF_RULE[rule]
    return None


def capped(value: Json) -> str:
    """A reject's text: JSON unless it is a string, cut to `MOST_REJECT_TEXT` characters, safe to print."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        text = "(nested too deeply to show)"
    if len(text) > MOST_REJECT_TEXT:
        text = text[:MOST_REJECT_TEXT] + "…"
    return text.encode("utf-8", "replace").decode("utf-8")
