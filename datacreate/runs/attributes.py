"""Attributes: dimensions in which the examples vary, such as topic or length, read from `--attributes FILE.yaml`.

Each request is written for one value of each dimension; `RunQuotas` in quotas.py keeps the shares.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from datacreate.errors import UsageError
from datacreate.files import read_yaml
from datacreate.formats.example import dotted
from datacreate.formats.text_normalization import words
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
    share: Annotated[float, Field(ge=0, le=1)]
    words: tuple[PositiveInt, PositiveInt] | None = (
        None  # the fewest and the most words of the inputs; checked
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.words and self.words[0] > self.words[1]:
            raise ValueError("words: the first number is larger than the second; write [fewest, most]")
        return self

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


def read_attributes(path: Path) -> Attributes:
    """The dimensions in a YAML file. Raises UsageError, in one line that names the key, if one is wrong."""
    try:
        document = read_yaml(path)
        if not isinstance(document, Mapping) or not document:
            raise UsageError(f"no dimensions; {_HOW}")
        dimensions = tuple(_dimension(str(name).strip(), given) for name, given in document.items())
        _check_different([each.name for each in dimensions], "a dimension")
        with_words = [each.name for each in dimensions if any(value.words for value in each.values)]
        if with_words[1:]:
            raise UsageError(
                f"{with_words[1]}: {with_words[0]} also has words; give them to one dimension only"
            )
    except (ValueError, UsageError) as error:
        raise UsageError(f"--attributes {path}: {error}") from None
    return dimensions


def _dimension(name: str, document: Any) -> Dimension:
    given: list[tuple[Any, Any]] = []
    if isinstance(document, list):
        given = [(value, None) for value in document]
    elif isinstance(document, Mapping):
        is_range = isinstance(document.get("words"), list) or list(document) == ["words"]
        given = [("", document)] if is_range else list(document.items())
    if not given or any(isinstance(value, list | Mapping) for value, _ in given):
        raise UsageError(f"{name}: {_HOW}")
    entries = [entry if isinstance(entry, Mapping) else {"share": entry} for _, entry in given]
    if all(each.get("share") is None for each in entries):
        entries = [{**each, "share": 1 / len(given)} for each in entries]
    texts = [str(text).strip() for text, _ in given]
    values = [_value(name, text, entry) for text, entry in zip(texts, entries, strict=True)]
    _check_different([value.name for value in values], f"{name}: a value")
    if len(values) < 2 and not values[0].words:
        raise UsageError(
            f"{name}: give at least two values, and write what all examples have in common into --instruction"
        )
    dimension = Dimension(name=name, values=tuple(values))
    check_shares(name, dimension.shares)
    return dimension


def _check_different(names: Sequence[str], what: str) -> None:
    """Raise UsageError unless these are different texts of one line."""
    for index, name in enumerate(names):
        if not name or any(unicodedata.category(letter) in _UNWRITABLE for letter in name):
            raise UsageError(f"{what} {name!r}: empty, or a line end or control character; write one line")
        if name.casefold() in map(str.casefold, names[:index]):
            raise UsageError(f"{what} {name!r}: given twice; give each another name")


def _value(dimension: str, name: str, fields: Mapping[str, Any]) -> AttributeValue:
    try:
        value = AttributeValue.model_validate({**fields, "name": name})
    except ValidationError as error:
        wrong = SettingsProblem.first(error)
        is_share = wrong.key == "share"  # in a file mostly without this name: `easy: 0.7`
        key = ".".join(filter(None, (dimension, name, "" if is_share else wrong.key)))
        whys = {"value_error": wrong.why, "extra_forbidden": "unknown key"}
        if is_share and fields.get("share") is None:
            whys = {wrong.kind: "give each value a share, or none of them"}
        raise UsageError(f"{key}: {whys.get(wrong.kind, _HOW)}") from None
    return value if name or not value.words else value.model_copy(update={"name": _range_name(value.words)})


def _range_name(words: tuple[int, int]) -> str:
    return f"{words[0]} to {words[1]} words"
