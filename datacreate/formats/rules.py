"""Defines `Rule`: conditions between the fields of one example, which a JSON Schema cannot express."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from datacreate.formats.answers import Answers
from datacreate.formats.example import Json, field_at, value_at
from datacreate.formats.layouts import call_fits, turns_alternate
from datacreate.formats.text_normalization import normalize_text


class Rule(StrEnum):
    """A condition between the fields of one example."""

    ANSWER_IN_OPTIONS = "answer_in_options"
    ANSWER_IN_CONTEXT = "answer_in_context"
    OPTIONS_DIFFER = "options_differ"
    CHOSEN_DIFFERS = "chosen_differs"
    TURNS_ALTERNATE = "turns_alternate"
    ONE_TAG_PER_TOKEN = "one_tag_per_token"
    CALL_FITS_TOOL = "call_fits_tool"


ROLES_OF_RULE: Mapping[Rule, tuple[str, ...]] = {
    Rule.ANSWER_IN_OPTIONS: ("answer", "options"),
    Rule.ANSWER_IN_CONTEXT: ("answer", "context"),
    Rule.OPTIONS_DIFFER: ("options",),
    Rule.CHOSEN_DIFFERS: ("answer", "rejected"),
    Rule.TURNS_ALTERNATE: ("turns",),
    Rule.ONE_TAG_PER_TOKEN: ("inputs", "tags"),
    Rule.CALL_FITS_TOOL: ("answer", "tools"),
}

_LETTER = r"[^\W_\u0530-\u1dff\u2c00-\U0010ffff]"
"""A digit, or a letter of an alphabet that puts spaces around every word: Latin, Greek, Cyrillic."""


def find_span(answer: str, context: str) -> int | None:
    """Where the answer stands in the context: it begins and ends where words do, and is not all of it; else None."""
    before = rf"(?<!{_LETTER})" if re.match(_LETTER, answer) else ""
    after = rf"(?!{_LETTER}|[\u0300-\u036f])" if re.search(rf"{_LETTER}$", answer) else ""
    for found in re.finditer(before + re.escape(answer) + after, context):
        if any(map(str.isalnum, context[: found.start()] + context[found.end() :])):
            return found.start()
    return None


def as_written(answer: str, context: str) -> str:
    """The answer as the context has it, if only case, space or punctuation around it differ; else unchanged."""
    words = answer.strip(" \t\n.,:;!?\"'“”‘’").split()
    found = re.finditer(r"\s+".join(map(re.escape, words)), context, re.IGNORECASE) if words else ()
    spans = (match[0] for match in found)
    return next((span for span in spans if find_span(span, context) is not None), answer)


def rule_holds(rule: Rule, answers: Answers, values: Mapping[str, Json]) -> bool:
    """Whether an example satisfies `rule`. The fields of the rule must exist."""
    roles = answers.roles
    if rule is Rule.OPTIONS_DIFFER:
        options = [normalize_text(str(option)) for option in field_at(values, roles.options or ())]
        return len(set(options)) == len(options)
    if rule is Rule.ANSWER_IN_OPTIONS:
        return answers.chosen(values) is not None
    if rule is Rule.TURNS_ALTERNATE:
        return turns_alternate(field_at(values, roles.turns or ()))
    if rule is Rule.ONE_TAG_PER_TOKEN:
        lists = filter(None, (value_at(values, path) for path in (roles.inputs[0], *roles.tags)))
        return len(set(map(len, lists))) == 1
    if rule is Rule.CALL_FITS_TOOL:
        return call_fits(field_at(values, roles.call or ()), field_at(values, roles.tools or ()))
    answer = field_at(values, roles.answer or ())
    if rule is Rule.CHOSEN_DIFFERS:
        return normalize_text(str(answer)) != normalize_text(str(field_at(values, roles.rejected or ())))
    context, starts = value_at(values, roles.context), value_at(values, roles.answer_start)
    return isinstance(context, str) and _is_extracted(answer, context, starts)


def _is_extracted(answer: Json, context: str, start: Json) -> bool:
    """Whether the answer, or each of several, is a span of the context; it is at `start`, if that is known."""
    texts = [str(each) for each in (answer if isinstance(answer, list) else [answer])]
    if start is None:
        return all(find_span(text, context) is not None for text in texts)
    starts = start if isinstance(start, list) else [start]
    same = (context[at : at + len(text)] == text for text, at in zip(texts, starts, strict=False))
    return len(texts) == len(starts) and all(same)
