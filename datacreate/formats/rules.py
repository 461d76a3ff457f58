"""Defines `Rule`: conditions between the fields of one example, which a JSON Schema cannot express."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from datacreate.formats.answers import Answers
from datacreate.formats.example import Json, field_at, value_at
from datacreate.formats.text_normalization import normalize_text


class Rule(StrEnum):
    """A condition between the fields of one example."""

    ANSWER_IN_OPTIONS = "answer_in_options"
    ANSWER_IN_CONTEXT = "answer_in_context"
    OPTIONS_DIFFER = "options_differ"


ROLES_OF_RULE: Mapping[Rule, tuple[str, ...]] = {
    Rule.ANSWER_IN_OPTIONS: ("answer", "options"),
    Rule.ANSWER_IN_CONTEXT: ("answer", "context"),
    Rule.OPTIONS_DIFFER: ("options",),
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


def rule_holds(rule: Rule, answers: Answers, values: Mapping[str, Json]) -> bool:
    """Whether an example satisfies `rule`. The fields of the rule must exist."""
    roles = answers.roles
    if rule is Rule.OPTIONS_DIFFER:
        options = [normalize_text(str(option)) for option in field_at(values, roles.options or ())]
        return len(set(options)) == len(options)
    if rule is Rule.ANSWER_IN_OPTIONS:
        return answers.chosen(values) is not None
    answer, context = field_at(values, roles.answer or ()), value_at(values, roles.context)
    if not isinstance(context, str):
        return False
    texts = [str(each) for each in (answer if isinstance(answer, list) else [answer])]
    if not roles.answer_start:
        return all(find_span(each, context) is not None for each in texts)
    start = field_at(values, roles.answer_start)
    starts = start if isinstance(start, list) else [start]
    pairs = zip(texts, starts, strict=False)
    return len(texts) == len(starts) and all(context[at : at + len(text)] == text for text, at in pairs)
