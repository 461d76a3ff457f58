"""Defines `Roles`: what each field of a task format is for."""

from __future__ import annotations

from dataclasses import dataclass

from datacreate.formats.example import FieldPath, Json, dotted


@dataclass(frozen=True)
class Roles:
    """The fields with each role; None or () if the format has none."""

    inputs: tuple[FieldPath, ...] = ()  # what the answer depends on, in the order of the schema
    context: FieldPath | None = None  # the input that holds the passage
    options: FieldPath | None = None
    keys: FieldPath | None = None  # the letters or numbers of the options, in a list beside them
    answer: FieldPath | None = None
    answer_start: FieldPath | None = None  # where an extractive answer starts in the context
    rejected: FieldPath | None = None  # a worse answer
    turns: FieldPath | None = None  # a conversation
    tools: FieldPath | None = None  # functions; the answer is the name of one, in a call
    tags: tuple[FieldPath, ...] = ()  # each has a tag for every token of the first input
    ignored: tuple[FieldPath, ...] = ()  # nothing uses them, and the model does not write them

    @property
    def call(self) -> FieldPath | None:
        """The object with the name of a function and its arguments."""
        return self.answer[:-1] if self.tools and self.answer else None

    def single(self) -> dict[str, FieldPath]:
        """The roles of one field each."""
        return {role: path for role, path in vars(self).items() if path and role not in LISTS}

    def named(self) -> dict[str, str]:
        """The roles that have a field, with dotted paths for messages."""
        lists = {role: ", ".join(map(dotted, getattr(self, role))) for role in LISTS}
        named = {**lists, **{role: dotted(path) for role, path in self.single().items()}}
        return {role: named[role] for role in vars(self) if named.get(role)}

    def document(self) -> dict[str, Json]:
        """The roles as a format file writes them."""
        lists = {role: [_written(path) for path in getattr(self, role)] for role in LISTS}
        lists = {role: paths for role, paths in lists.items() if paths}
        return {**lists, **{role: _written(path) for role, path in self.single().items()}}


LISTS = ("inputs", "tags", "ignored")


def _written(path: FieldPath) -> Json:
    return list(path) if any("." in key for key in path) else ".".join(path)


_PATH = {"type": ["string", "array"], "items": {"type": "string"}}
_PATHS = {"type": "array", "items": _PATH}
ROLES_SCHEMA = {
    "properties": {role: _PATHS if role in LISTS else _PATH for role in vars(Roles())},
    "additionalProperties": False,
    "type": "object",
}
"""The schema of `roles` in a format file."""
