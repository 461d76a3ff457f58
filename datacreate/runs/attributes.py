"""Attributes: dimensions in which the examples vary, such as topic or length, read from `--attributes FILE.yaml`.

Each request is written for one value of each dimension; `AttributeQuotas` in quotas.py keeps the shares.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from datacreate.errors import UsageError
from datacreate.files import read_yaml
from datacreate.formats.example import dotted
from datacreate.formats.text_normalization import words
from datacreate.messages import did_you_mean
from datacreate.settings import FrozenModel, SettingsProblem, check_shares

if TYPE_CHECKING:  # jsonschema, which they import, would make `--help` slow
    from datacreate.formats.task_format import TaskFormat
    from datacreate.formats.validate import Candidate, Reject

_HOW = "write it as `topic: [sport, politics]`, `level: {easy: 0.7, hard: 0.3}` or `length: {words: [5, 40]}`"

_UNWRITABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that no name or value has: the prompt and the tables have each on one line."""


class AttributeValue(FrozenModel):
    """A value of a dimension, and the share of the examples that have it."""

    name: str
    share: float
    words: tuple[int, int] | None = None  # the fewest and the most words of the inputs; checked

    def described(self, format: TaskFormat) -> str:
        """The value as the prompt names it: `short, 3 to 12 words in question`."""
        if self.words is None:
            return self.name
        given = format.passage_field if format.context_is_given else None
        inputs = [dotted(path) for path in format.roles.inputs if path != given]
        where = f" in {' and '.join(inputs)}{' together' if inputs[1:] else ''}" if inputs else ""
        length = _range_name(self.words) + where
        return length if self.name == _range_name(self.words) else f"{self.name}, {length}"


class Dimension(FrozenModel):
    """A dimension and its values; the shares add up to 1."""

    name: str
    values: tuple[AttributeValue, ...]

    @property
    def shares(self) -> dict[str, float]:
        """The share of each value."""
        return {value.name: value.share for value in self.values}


Attributes = tuple[Dimension, ...]


def described(dimensions: Attributes, format: TaskFormat) -> dict[str, dict[str, str]]:
    """Dimension -> value -> how the prompt names it."""
    return {each.name: {value.name: value.described(format) for value in each.values} for each in dimensions}


def attribute_field(name: str) -> str:
    """The field that has the value of a dimension, where it is shown or exported beside an example."""
    return f"attributes.{name}"


def find_length_error(
    candidate: Candidate, attributes: Mapping[str, str], dimensions: Attributes
) -> Reject | None:
    """A reject if the example was written for a range of words and its inputs have fewer or more.

    `attributes`: the value of each dimension. A context that was given with the request does not count.
    """
    from datacreate.formats.validate import RejectReason

    chosen = (value for each in dimensions for value in each.values if attributes[each.name] == value.name)
    wanted = next((value.words for value in chosen if value.words), None)
    number = len(words(candidate.compared_text, None)) if wanted else 0
    if wanted is None or wanted[0] <= number <= wanted[1]:
        return None
    return candidate.reject(RejectReason.WRONG_LENGTH, f"{number} words, expected {wanted[0]} to {wanted[1]}")


class _Entry(FrozenModel):
    """What a file says of one value."""

    share: Annotated[float, Field(ge=0, le=1)] | None = None
    words: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_share(cls, given: Any) -> Any:
        return {"share": given} if given is None or isinstance(given, int | float) else given

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.words and self.words[0] > self.words[1]:
            raise ValueError("words: the first number is larger than the second; write [fewest, most]")
        return self


def read_attributes(path: Path) -> Attributes:
    """The dimensions in a YAML file. Raises UsageError, in one line that names the key, if one is wrong."""
    try:
        document = read_yaml(path)
        if not isinstance(document, Mapping) or not document:
            raise UsageError(f"no dimensions; {_HOW}")
        names = [str(name).strip() for name in document]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UsageError(f"{repeated[0]}: given twice; give each dimension another name")
        dimensions = tuple(map(_dimension, names, document.values()))
        with_words = [each.name for each in dimensions if any(value.words for value in each.values)]
        if with_words[1:]:
            raise UsageError(
                f"{with_words[1]}: {with_words[0]} also has words; give them to one dimension only"
            )
    except (ValueError, UsageError) as error:
        raise UsageError(f"--attributes {path}: {error}") from None
    return dimensions


def _dimension(name: str, document: Any) -> Dimension:
    if isinstance(document, list):
        given: list[tuple[Any, Any]] = [(value, None) for value in document]
    elif isinstance(document, Mapping):
        is_one_range = isinstance(document.get("words"), list) or list(document) == ["words"]
        given = [("", document)] if is_one_range else list(document.items())
    else:
        raise UsageError(f"{name}: {_HOW}")
    entries: dict[str, _Entry] = {}
    for value, fields in given:
        if isinstance(value, list | Mapping):
            raise UsageError(f"{name}: {_HOW}")
        entry = _entry(f"{name}.{value}".rstrip("."), fields)
        text = str(value).strip() or (_range_name(entry.words) if entry.words else "")
        if not text or text.casefold() in map(str.casefold, entries):
            raise UsageError(f"{name}: the value {text!r} is empty or given twice; give each another name")
        entries[text] = entry
    if not name or any(unicodedata.category(letter) in _UNWRITABLE for letter in "".join((name, *entries))):
        raise UsageError(
            f"{name!r}: an empty name, or a line end or control character; write texts of one line"
        )
    if len(entries) < 2 and not any(entry.words for entry in entries.values()):
        raise UsageError(
            f"{name}: give at least two values, and write what all examples have in common into --instruction"
        )
    shares = {text: entry.share for text, entry in entries.items() if entry.share is not None}
    if missing := [text for text in entries if shares and text not in shares]:
        raise UsageError(f"{name}: no share for {missing[0]}; give each value one, or none of them")
    shares = shares or dict.fromkeys(entries, 1 / len(entries))
    check_shares(name, shares)
    values = [
        AttributeValue(name=text, share=shares[text], words=each.words) for text, each in entries.items()
    ]
    return Dimension(name=name, values=tuple(values))


def _entry(key: str, given: Any) -> _Entry:
    try:
        return _Entry.model_validate(given)
    except ValidationError as error:
        wrong = SettingsProblem.first(error)
        key = ".".join(filter(None, (key, wrong.key)))
        why = {"value_error": wrong.why, "extra_forbidden": "unknown key"}.get(wrong.kind, _HOW)
        last = key.rpartition(".")[2]
        hint = "" if last in _Entry.model_fields else did_you_mean(last, _Entry.model_fields)
        raise UsageError(f"{key}: {why}{hint}") from None


def _range_name(words: tuple[int, int]) -> str:
    return f"{words[0]} to {words[1]} words"
