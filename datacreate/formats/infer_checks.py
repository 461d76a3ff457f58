"""Refuses examples and options from which no right format can be inferred."""

from __future__ import annotations

from collections.abc import Mapping

from datacreate.errors import ExampleError, UsageError
from datacreate.formats.example import (
    Example,
    FieldPath,
    Json,
    dotted,
    field_at,
    fields_of,
    one_line,
    value_at,
)
from datacreate.formats.infer_answers import OPTIONS_NAMES
from datacreate.formats.options import FormatOptions, named_field
from datacreate.formats.roles import FIRST_CODES, Roles, codes
from datacreate.formats.rules import as_messages
from datacreate.formats.schema_utils import Schema, fixed_labels

_CHAT_ROLES = ("system", "user", "assistant", "human", "gpt")


def check_options(example: Example, options: FormatOptions) -> None:
    """Raises UsageError if a field is given two roles, or if the field of --options has no list."""
    given = [*(("--inputs", name) for name in options.inputs), ("--answer", options.answer)]
    given += [("--options", options.options), *(("--ignore", name) for name in options.ignore)]
    flags: dict[str, str] = {}
    for flag, name in given:
        if name and flags.setdefault(name, flag) != flag:
            raise UsageError(f"{name} is named in {flags[name]} and in {flag}; name it in one of them")
    if options.options:
        value = field_at(example.values, named_field(example, options.options, "--options"))
        if not isinstance(value, list) or len(value) < 2:
            raise UsageError(
                f"--options {options.options}: the example has no list of two or more values there; "
                "write the options as a list"
            )


def check_layout(
    example: Example, options: FormatOptions, answer: FieldPath | None, scalars: Mapping[FieldPath, Json]
) -> None:
    """Raises ExampleError for a layout that would be misread; without `answer` any of the scalars may be the answer."""
    answers = {answer: scalars[answer]} if answer is not None and answer in scalars else dict(scalars)
    ignored = [tuple(name.split(".")) for name in options.ignore]
    for path, value in [((), example.values), *fields_of(example.values)]:
        if any(path[: len(each)] == each for each in ignored):
            continue
        if isinstance(value, Mapping):
            is_named = bool(path) and path[-1].casefold() in OPTIONS_NAMES
            if answer in scalars or is_named:
                _check_named_texts(path, value, answers)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            _check_messages(path, value)
            is_given = options.options == ".".join(path)
            if is_given or path[-1].casefold() in OPTIONS_NAMES:
                _check_objects(path, value, answers)


def check_alike(roles: Roles, example: Example, first: Example) -> None:
    """Raises ExampleError for another number of options, other keys, tools, or another start of a conversation."""

    def form(values: Mapping[str, Json]) -> dict[FieldPath | None, Json]:
        turns = value_at(values, roles.turns)
        return {
            roles.options: len(value_at(values, roles.options) or ()),
            roles.turns: turns and as_messages(turns)[0]["role"],
            **{path: value_at(values, path) for path in (roles.keys, roles.tools)},
        }

    wanted = form(first.values)
    for path, value in form(example.values).items():
        if path and value != wanted[path]:
            raise ExampleError(
                f"{example.where}{dotted(path)}: all examples need the same number of options with the same letters, "
                "the same tools, and the same first message; make them alike"
            )


def check_answer_values(roles: Roles, own: Schema, example: Example) -> None:
    """Raises UsageError if the values given for an answer are not the positions, letters or keys of the options."""
    answer, options = (field_at(example.values, path or ()) for path in (roles.answer, roles.options))
    if roles.keys:
        possible = [field_at(example.values, roles.keys)]
    elif str(answer).casefold() in [str(option).casefold() for option in options]:
        return
    else:
        possible = [codes(first, len(options)) for first in FIRST_CODES if type(first) is type(answer)]
        possible = [each for each in possible if answer in each]
    labels = fixed_labels(own) or ()
    if possible and set(labels) not in map(set, possible):
        wanted = " or ".join(",".join(map(str, each)) for each in possible)
        raise UsageError(
            f"--labels or --range for {dotted(roles.answer or ())}: it says which of the {len(options)} options in "
            f"{dotted(roles.options or ())} is right; its values can only be {wanted}"
        )


def _check_named_texts(path: FieldPath, value: Mapping[str, Json], answers: Mapping[FieldPath, Json]) -> None:
    """Refuses options that are fields of an object, such as A, B, C and D, one of which the answer names."""
    texts = [key for key, part in value.items() if isinstance(part, str) and part]
    for where, answer in answers.items():
        others = [key for key in texts if (*path, key) != where]
        if answer in others and len(others) > 1:
            raise ExampleError(
                f"{dotted(where)}: {one_line(str(answer))!r} is the name of the field {dotted((*path, str(answer)))}; "
                'write the options as a list: "options": ["...", "..."]'
            )


def _check_objects(path: FieldPath, items: list[Json], answers: Mapping[FieldPath, Json]) -> None:
    """Refuses options that are objects with a letter or number and a text."""
    possible = [part for item in items for part in item.values()]
    possible += [code for first in FIRST_CODES for code in codes(first, len(items))]
    for where, answer in answers.items():
        if not isinstance(answer, bool) and answer in possible:
            raise ExampleError(
                f"{dotted(path)}: options that are objects cannot be matched with {dotted(where)}; write the texts in "
                'one list and the letters in another: {"text": [...], "label": [...]}'
            )


def _check_messages(path: FieldPath, items: list[Json]) -> None:
    """Refuses messages that are not a conversation of user and assistant at the top level."""
    role = next(
        (r for r, text in (("role", "content"), ("from", "value")) if {r, text} <= items[0].keys()), ""
    )
    if not role or any(not isinstance(item.get(role), str) for item in items):
        return
    name = dotted(path)
    for item in items:
        if item[role] not in _CHAT_ROLES or item.get("tool_calls"):
            what = "tool_calls" if item[role] in _CHAT_ROLES else f"the role {one_line(item[role])!r}"
            raise ExampleError(
                f"{name}: {what} cannot be created or checked; only system, user and assistant can: "
                "remove the messages of tools"
            )
    if path[-1] in ("prompt", "chosen", "rejected"):
        raise ExampleError(f"{name} is a list of messages; write prompt, chosen and rejected as texts")
