"""What the fields of an example are for, and what must hold between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from datacreate.formats.example import FieldPath, Json, dotted, field_at


class Rule(StrEnum):
    """What must hold between the fields of one example."""

    ANSWER_IN_OPTIONS = "answer_in_options"
    ANSWER_IN_CONTEXT = "answer_in_context"
    OPTIONS_DIFFER = "options_differ"


ROLES_OF_RULE: Mapping[Rule, tuple[str, ...]] = {
    Rule.ANSWER_IN_OPTIONS: ("answer", "options"),
    Rule.ANSWER_IN_CONTEXT: ("answer", "context"),
    Rule.OPTIONS_DIFFER: ("options",),
}
"""The roles that a rule speaks of."""


@dataclass(frozen=True)
class Roles:
    """Which field is which; None where the format has no such field."""

    question: FieldPath | None = None
    context: FieldPath | None = None
    options: FieldPath | None = None
    answer: FieldPath | None = None

    def paths(self) -> dict[str, FieldPath]:
        """The roles that are there."""
        return {role: path for role, path in vars(self).items() if path is not None}

    def named(self) -> dict[str, str]:
        """The roles that are there, as dotted paths to be read by people."""
        return {role: dotted(path) for role, path in self.paths().items()}

    def document(self) -> dict[str, Json]:
        """The roles as a format file has them: dotted, or a list of keys where a key has a dot itself."""
        return {
            role: list(path) if any("." in key for key in path) else ".".join(path)
            for role, path in self.paths().items()
        }


def answer_text(value: Json) -> str:
    """An answer as an option spells it: True for true, 3 for 3."""
    return value if isinstance(value, str) else str(value)


def holds(rule: Rule, roles: Roles, values: Mapping[str, Json]) -> bool:
    """Whether `rule` holds for the fields of one example; they must be there."""
    if rule is Rule.OPTIONS_DIFFER:
        options = [answer_text(option).strip().casefold() for option in field_at(values, roles.options or ())]
        return len(set(options)) == len(options)
    answer = answer_text(field_at(values, roles.answer or ()))
    if rule is Rule.ANSWER_IN_CONTEXT:
        context = field_at(values, roles.context or ())
        return isinstance(context, str) and answer in context
    answer = answer.casefold()
    return any(answer_text(option).casefold() == answer for option in field_at(values, roles.options or ()))
