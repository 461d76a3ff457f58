"""Defines `Candidate`, an example that is valid in its format, and validates examples.

`validate_example` checks all that an engine does not enforce: every keyword of the schema, the texts (blank, control
characters), and the rules between fields. `Candidate.exact_key` defines what an exact duplicate is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from jsonschema.exceptions import ValidationError, best_match

from datacreate.formats.example import (
    Example,
    Json,
    dotted,
    field_at,
    find_unsupported_value,
    shorten,
    value_at,
    values_in,
)
from datacreate.formats.reject import Reject, RejectReason
from datacreate.formats.schema_keywords import ENFORCED_KEYWORDS, VALIDATION_KEYWORDS, describe_error
from datacreate.formats.schema_utils import free_texts, leaf_schemas, normalize_values
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.text_normalization import normalize_text

_MIN_COPIED_WORDS = 8  # an input with fewer words, such as a term, may be a part of the passage that it is about

_INVALID = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffd-\uffff]")
_VISIBLE = re.compile(r"[^\s\u00ad\u115f\u1160\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2800\u3164\ufeff]")
_WORD = re.compile(r"[^\W_]|[\u2190-\u2bff\U0001f000-\U0001faff]")  # a letter, a digit, an arrow, an emoji


@dataclass(frozen=True)
class Candidate:
    """A valid example with the texts that filters compare.

    Two examples are exact duplicates if their `exact_key` is equal: all inputs, normalized by `normalize_text`.
    Answers, options and other fields do not count.
    """

    example: Example
    inputs: tuple[str, ...]  # from `TaskFormat.input_texts`
    exact_key: str
    embedding_text: str  # from `TaskFormat.embedding_text`
    passage: str = ""  # one of the inputs; empty if the format has no passage
    passage_id: str = ""  # hash of a given passage: only examples about the same passage are compared

    @property
    def text_without_passage(self) -> str:
        """The inputs without the passage, as one text.

        It has `TaskFormat.texts_beside_passage`, or all values that vary if no input has a text.
        """
        return "\n".join(text for text in self.inputs if text != self.passage)

    @classmethod
    def of(cls, values: Mapping[str, Json], task_format: TaskFormat) -> Self:
        """Make the candidate of an example that is valid in the format."""
        inputs, passage, passage_id = task_format.input_texts(values), task_format.passage(values), ""
        exact_key = "\n".join(map(normalize_text, inputs))
        if passage and task_format.context_is_given:
            passage_id = hashlib.sha256(passage.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return cls(Example(values), inputs, exact_key, task_format.embedding_text(values), passage, passage_id)

    def reject(self, reason: RejectReason, detail: str = "") -> Reject:
        """Make a reject of this example, for a reason that is found after validation."""
        return Reject(reason, shorten(self.example.values), detail)


class CopyChecks:
    """Finds examples that copy: an example in the prompt, a part of the passage, or an input as the answer or as
    another input.

    If a formatting example itself copies the passage or an input, such copies are not rejected.
    """

    def __init__(self, formatting_examples: Iterable[Mapping[str, Json]], task_format: TaskFormat) -> None:
        self._format = task_format
        candidates = [Candidate.of(values, task_format) for values in formatting_examples]
        self.formatting_keys = {candidate.exact_key for candidate in candidates}
        checks = (
            (_answer_repeats_input, RejectReason.ANSWER_REPEATS_INPUT, ""),
            (_copies_passage, RejectReason.COPIED_EXAMPLE, "a part of the passage"),
            (_repeats_input, RejectReason.COPIED_EXAMPLE, "an input is equal to another"),
        )
        self._checks = [check for check in checks if not any(check[0](example, task_format) for example in candidates)]

    def find_reject(self, candidate: Candidate, shown_keys: Collection[str]) -> Reject | None:
        """The reject of a valid example that is a copy, else None. `shown_keys`: exact keys of the examples shown."""
        if candidate.exact_key in shown_keys:
            return candidate.reject(RejectReason.COPIED_EXAMPLE)
        for is_copy, reason, detail in self._checks:
            if is_copy(candidate, self._format):
                return candidate.reject(reason, detail)
        return None


def _answer_repeats_input(candidate: Candidate, task_format: TaskFormat) -> bool:
    """Whether an answer in free text is equal to an input after normalization. False for labels and options."""
    answer = value_at(candidate.example.values, task_format.roles.answer)
    if task_format.labels or task_format.roles.options or not isinstance(answer, str):
        return False
    return any(map(str.isalpha, answer)) and normalize_text(answer) in map(normalize_text, candidate.inputs)


def _copies_passage(candidate: Candidate, _: TaskFormat) -> bool:
    """Whether the inputs beside a given passage are only a copy of `_MIN_COPIED_WORDS` or more of its words."""
    if not candidate.passage_id:
        return False
    text = normalize_text(candidate.text_without_passage)
    return text.count(" ") + 1 >= _MIN_COPIED_WORDS and text in normalize_text(candidate.passage)


def _repeats_input(candidate: Candidate, task_format: TaskFormat) -> bool:
    """Whether two input fields have the same text of several words. Items of one list, such as turns, may be equal."""
    values = (values_in(value_at(candidate.example.values, path)) for path in task_format.roles.inputs)
    texts = [text for text in map(normalize_text, map("\n".join, values)) if " " in text]
    return len(set(texts)) < len(texts)


def validate_example(
    values: Mapping[str, Json], task_format: TaskFormat, *, allow_empty: bool = False
) -> Candidate | Reject:
    """Check the values of an example against its format: characters, schema, texts, rules. Outer spaces are removed.

    Returns a candidate, or a reject with the first problem. With `allow_empty` texts may be empty, but not all inputs
    beside the passage. Raises nothing.
    """
    if not task_format.roles.answer_start:  # outer spaces also count
        values = normalize_values(values, task_format.schema)
    try:
        problem = _find_problem(values, task_format, allow_empty=allow_empty)
        if problem is None:
            return Candidate.of(values, task_format)
    except KeyError as missing:  # a schema may allow what the roles of its fields do not
        problem = RejectReason.SCHEMA_VIOLATION, f"the field {missing.args[0]} is missing"
    except TypeError:
        problem = RejectReason.SCHEMA_VIOLATION, f"a field has a different type in the format {task_format.name}"
    reason, detail = problem
    return Reject(reason, shorten(values), detail)


def _find_problem(
    values: Mapping[str, Json], task_format: TaskFormat, *, allow_empty: bool
) -> tuple[RejectReason, str] | None:
    """The reason for a reject and a detail about it; None if the example is valid.

    Raises KeyError or TypeError if a field with a role is missing, or has a type that the role cannot have.
    """
    texts = free_texts(values, task_format.schema)
    if any(map(_INVALID.search, texts)):
        return RejectReason.INVALID_CHARACTERS, ""
    if message := find_unsupported_value(values):
        return RejectReason.SCHEMA_VIOLATION, message  # such as NaN, which Python's json reads
    if error := best_match(task_format.validator.iter_errors(values)):
        return _problem_of(error)
    field_at(values, task_format.roles.answer or ())  # KeyError if the schema does not require it
    if not all(_VISIBLE.search(text) or (allow_empty and not text) for text in texts):
        return RejectReason.BLANK, ""
    for rule in sorted(task_format.rules):
        if not rule.holds(task_format.answers, values):
            return rule.reject_reason, ""
    roles = task_format.roles
    inputs = task_format.texts_beside_passage(values) if roles.inputs else [task_format.embedding_text(values)]
    if not any(map(_WORD.search, inputs)):
        fields = ", ".join(map(dotted, roles.inputs))
        return RejectReason.BLANK, f"no text in the input {fields}" if fields else ""
    return None


def find_invalid_character(values: Mapping[str, Json], task_format: TaskFormat) -> str | None:
    """The field and the first character of an example that created examples must not have: `text: ... U+0000`."""
    fields = {path: part for path, part in leaf_schemas(task_format.schema) if path not in task_format.roles.ignored}
    for path, part in fields.items():
        for match in filter(None, map(_INVALID.search, free_texts(value_at(values, path), part))):
            return f"{dotted(path)}: the character U+{ord(match[0]):04X} is not allowed"
    return None


def _problem_of(error: ValidationError) -> tuple[RejectReason, str]:
    """The reason for a reject and a detail, from an error of `jsonschema`.

    It is a schema violation only if engines enforce the keyword, and all keywords that it is inside of.
    """
    location = dotted(tuple(map(str, error.absolute_path))) or "the example"
    if error.validator in ENFORCED_KEYWORDS and VALIDATION_KEYWORDS.isdisjoint(map(str, error.absolute_schema_path)):
        return RejectReason.SCHEMA_VIOLATION, f"{location}: {shorten(describe_error(error), 150)}"
    detail = f"{location}: {error.validator} {shorten(error.validator_value, 80)}"
    return RejectReason.CONSTRAINT_VIOLATION, detail
