"""Defines `Rule`: conditions between the fields of one example, which a JSON Schema cannot express."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from datacreate.formats.example import Json, field_at, value_at
from datacreate.formats.layouts import call_fits, turns_alternate
from datacreate.formats.roles import Roles
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


def is_span(answer: str, context: str) -> bool:
    """Whether the answer is a part of the context, not the whole, that begins and ends where words do."""
    before = rf"(?<!{_LETTER})" if re.match(_LETTER, answer) else ""
    after = rf"(?!{_LETTER}|[\u0300-\u036f])" if re.search(rf"{_LETTER}$", answer) else ""
    found = re.finditer(before + re.escape(answer) + after, context)
    return any(map(str.isalnum, "".join(context[: m.start()] + context[m.end() :] for m in found)))


def rule_holds(rule: Rule, roles: Roles, values: Mapping[str, Json]) -> bool:
    """Whether an example satisfies `rule`. The fields of the rule must exist."""
    if rule is Rule.OPTIONS_DIFFER:
        options = [normalize_text(str(option)) for option in field_at(values, roles.options or ())]
        return len(set(options)) == len(options)
    if rule is Rule.TURNS_ALTERNATE:
        return turns_alternate(field_at(values, roles.turns or ()))
    if rule is Rule.ONE_TAG_PER_TOKEN:
        lists = filter(None, (value_at(values, path) for path in (roles.inputs[0], *roles.tags)))
        return len(set(map(len, lists))) == 1
    if rule is Rule.CALL_FITS_TOOL:
        return call_fits(field_at(values, roles.call or ()), field_at(values, roles.tools or ()))
    answer = str(field_at(values, roles.answer or ()))
    if rule is Rule.CHOSEN_DIFFERS:
        return normalize_text(answer) != normalize_text(str(field_at(values, roles.rejected or ())))
    if rule is Rule.ANSWER_IN_CONTEXT:
        context = field_at(values, roles.context or ())
        return isinstance(context, str) and is_span(answer, context)
    options = field_at(values, roles.options or ())
    return answer.casefold() in [str(option).casefold() for option in options]
