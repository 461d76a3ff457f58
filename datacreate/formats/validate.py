"""From a completion's text to accepted examples, and rejects with a reason each.

The grammar makes most of this unnecessary; what it cannot say is checked here: lengths and formats,
the answer is one of the options, options differ, nothing is blank, nothing copies its parent. A
truncated array still gives its complete items.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from jsonschema.exceptions import best_match

from datacreate.formats.example import Example, Json, dotted, field_at, flaw_in
from datacreate.formats.json_extraction import json_part
from datacreate.formats.keywords import KEYWORDS, Held
from datacreate.formats.roles import Rule, holds
from datacreate.formats.serialization import Layout, Malformed
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.text_normalization import normalised

__all__ = [
    "Candidate",
    "Reason",
    "Reject",
    "candidate",
    "capped",
    "judge",
    "read_completion",
    "validate_example",
]

MOST_REJECT_TEXT = 400
"""Characters of a reject's text that are kept."""


class Reason(StrEnum):
    """Why something a model wrote is not in the training set."""

    NO_ANSWER = "no_answer"  # the engine failed, or nothing came back
    UNPARSABLE = "unparsable"  # not JSON
    TRUNCATED = "truncated"  # cut off at max_tokens
    SCHEMA = "schema"  # not of the format's shape
    CONSTRAINT = "constraint"  # of its shape, but breaks what no grammar holds: a length, a bound, a `format`
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
    body = json_part(text)
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
    """Validate one item that a model wrote."""
    try:
        found = validate_example(layout.read(item), layout.format, echo=layout.echo)
    except (Malformed, RecursionError):
        return Reject(Reason.SCHEMA, capped(item))
    return found if isinstance(found, Candidate) else replace(found, text=capped(item))


def validate_example(
    values: Mapping[str, Json],
    format: TaskFormat,
    *,
    echo: re.Pattern[str] | None = None,
    allow_empty: bool = False,
) -> Candidate | Reject:
    """Check one example against its format: schema, texts, rules. Returns the first reject reason, if any.

    Used for what a model writes and for the rows of files. `echo` matches texts that only repeat words of the
    prompt. With `allow_empty` a text other than the one compared may be the empty string.
    """
    found = _first_error(values, format, echo, allow_empty)
    if found is not None:
        return Reject(found[0], capped(values), found[1])
    example = candidate(values, format)
    return example if _WORD.search(example.text) else Reject(Reason.BLANK, capped(values))


def _first_error(
    values: Mapping[str, Json], format: TaskFormat, echo: re.Pattern[str] | None, allow_empty: bool
) -> tuple[Reason, str] | None:
    if format.holds_numbers and (flaw := flaw_in(values)):
        return Reason.SCHEMA, flaw  # such as NaN: Python reads it as JSON, and jsonschema cannot divide it
    if not format.validator.is_valid(values):
        return _schema_error(values, format)
    for text in format.free_texts(values):
        if allow_empty and not text:
            continue
        if _GARBLED.search(text):
            return Reason.GARBLED, ""
        if not _VISIBLE.search(text):
            return Reason.BLANK, ""
        if echo and echo.fullmatch(text):
            return Reason.ECHO, ""
    for rule in sorted(format.rules):
        if not holds(rule, format.roles, values):
            return _REASON_OF_RULE[rule], ""
    return None


def _schema_error(values: Mapping[str, Json], format: TaskFormat) -> tuple[Reason, str]:
    """`schema` for a keyword that the grammar enforces, `constraint` for one that only validation checks."""
    error = best_match(format.validator.iter_errors(values))
    if error is None:  # cannot happen: it is invalid
        return Reason.SCHEMA, ""
    keyword, path = str(error.validator), list(map(str, error.absolute_schema_path))
    place = dotted(tuple(map(str, error.absolute_path))) or "the example"
    in_grammar = KEYWORDS.get(keyword) is Held.GRAMMAR
    if in_grammar and not any(KEYWORDS.get(step) is Held.VALIDATION for step in path):
        return Reason.SCHEMA, f"{place}: {capped(' '.join(error.message.split()))[:150]}"
    return Reason.CONSTRAINT, f"{place}: {keyword} {capped(error.validator_value)[:80]}"


def capped(value: Json) -> str:
    """A reject's text: JSON unless it is a string, cut to `MOST_REJECT_TEXT` characters, safe to print."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        text = "(nested too deeply to show)"
    if len(text) > MOST_REJECT_TEXT:
        text = text[:MOST_REJECT_TEXT] + "…"
    return text.encode("utf-8", "replace").decode("utf-8")
