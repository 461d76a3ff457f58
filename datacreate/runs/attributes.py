"""Attributes: dimensions in which the examples vary, such as topic or length, read from `--attributes FILE.yaml`.

Each request is written for one value of each dimension; `RunQuotas` in creation/quotas.py keeps the shares.
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
from datacreate.formats.reject import Reject, RejectReason
from datacreate.formats.text_normalization import words
from datacreate.settings import FrozenModel, SettingsProblem, check_shares

if TYPE_CHECKING:  # jsonschema, which they import, would make `--help` slow
    from datacreate.formats.candidate import Candidate
    from datacreate.formats.task_format import TaskFormat

_ADVICE = "write it as `topic: [sport, politics]`, `level: {easy: 0.7, hard: 0.3}` or `length: {words: [5, 40]}`"

_FORBIDDEN_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that no name or value has, because prompts and tables show each on one line."""


class AttributeValue(FrozenModel):
    """A value of a dimension, and the share of the examples that have it."""

    name: str
    share: Annotated[float, Field(ge=0, le=1)]
    words: tuple[PositiveInt, PositiveInt] | None = None  # the fewest and the most words of the inputs

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.words and self.words[0] > self.words[1]:
            raise ValueError("words: the first number is larger than the second; write [fewest, most]")
        return self

    def description(self, task_format: TaskFormat) -> str:
        """The text for the prompt: `short, 3 to 12 words in question`."""
        if self.words is None:
            return self.name
        given_context = task_format.passage_field if task_format.context_is_given else None
        inputs = [dotted(path) for path in task_format.roles.inputs if path != given_context]
        fields = f" in {' and '.join(inputs)}" if inputs else ""
        together = " together" if len(inputs) > 1 else ""
        name = "" if self.name == _range_name(self.words) else f"{self.name}, "
        return f"{name}{_range_name(self.words)}{fields}{together}"


class Dimension(FrozenModel):
    """A dimension and its values; the shares add up to 1."""

    name: str
    values: tuple[AttributeValue, ...]

    @property
    def shares(self) -> dict[str, float]:
        """The share of each value."""
        return {value.name: value.share for value in self.values}


Attributes = tuple[Dimension, ...]


def attribute_descriptions(dimensions: Attributes, task_format: TaskFormat) -> dict[str, dict[str, str]]:
    """Dimension -> value -> its text for the prompt."""
    return {
        dimension.name: {value.name: value.description(task_format) for value in dimension.values}
        for dimension in dimensions
    }


def attribute_field(name: str) -> str:
    """The name of the field with an example's value of a dimension, in exports and tables."""
    return f"attributes.{name}"


def find_length_reject(candidate: Candidate, attributes: Mapping[str, str], dimensions: Attributes) -> Reject | None:
    """A `Reject` if the example was written for a range of words and its inputs have fewer or more.

    `attributes`: dimension -> value. A context that was given with the request does not count.
    """
    chosen = (
        value for dimension in dimensions for value in dimension.values if attributes[dimension.name] == value.name
    )
    limits = next((value.words for value in chosen if value.words), None)
    if limits is None:
        return None
    count = len(words(candidate.embedding_text, None))
    if limits[0] <= count <= limits[1]:
        return None
    return candidate.reject(RejectReason.WRONG_LENGTH, f"{count} words, expected {limits[0]} to {limits[1]}")


def read_attributes(path: Path) -> Attributes:
    """The dimensions in a YAML file. Raises UsageError, in one line that names the key, if one is wrong."""
    try:
        document = read_yaml(path)
        if not isinstance(document, Mapping) or not document:
            raise UsageError(f"no dimensions; {_ADVICE}")
        dimensions = tuple(_dimension(str(name).strip(), values) for name, values in document.items())
        _check_names([dimension.name for dimension in dimensions], "a dimension")
        with_words = [dimension.name for dimension in dimensions if any(value.words for value in dimension.values)]
        if with_words[1:]:
            raise UsageError(f"{with_words[1]}: {with_words[0]} also has words; give them to one dimension only")
    except (ValueError, UsageError) as error:
        raise UsageError(f"--attributes {path}: {error}") from None
    return dimensions


def _dimension(name: str, document: Any) -> Dimension:
    """A dimension from a list of values, from a mapping of values to shares or settings, or from a range of words."""
    entries: list[tuple[Any, Any]] = []  # value and share, or value and settings
    if isinstance(document, list):
        entries = [(value, None) for value in document]
    elif isinstance(document, Mapping):
        is_range = isinstance(document.get("words"), list) or list(document) == ["words"]
        entries = [("", document)] if is_range else list(document.items())
    if not entries or any(isinstance(value, list | Mapping) for value, _ in entries):
        raise UsageError(f"{name}: {_ADVICE}")
    settings = [entry if isinstance(entry, Mapping) else {"share": entry} for _, entry in entries]
    if all(each.get("share") is None for each in settings):
        settings = [{**each, "share": 1 / len(entries)} for each in settings]
    texts = [str(value).strip() for value, _ in entries]
    values = [_value(name, text, own) for text, own in zip(texts, settings, strict=True)]
    _check_names([value.name for value in values], f"{name}: a value")
    if len(values) < 2 and not values[0].words:
        raise UsageError(
            f"{name}: give at least two values, and write what all examples have in common into --instruction"
        )
    dimension = Dimension(name=name, values=tuple(values))
    check_shares(name, dimension.shares)
    return dimension


def _check_names(names: Sequence[str], kind: str) -> None:
    """Raise UsageError unless these are different texts of one line; `kind` says of what they are the names."""
    for index, name in enumerate(names):
        if not name or any(unicodedata.category(letter) in _FORBIDDEN_CATEGORIES for letter in name):
            raise UsageError(f"{kind} {name!r}: empty, or a line end or control character; write one line")
        if name.casefold() in map(str.casefold, names[:index]):
            raise UsageError(f"{kind} {name!r}: given twice; give each another name")


def _value(dimension: str, name: str, settings: Mapping[str, Any]) -> AttributeValue:
    """A value of a dimension; without a name it is named after its range of words."""
    try:
        value = AttributeValue.model_validate({**settings, "name": name})
    except ValidationError as error:
        problem = SettingsProblem.first(error)
        is_share = problem.key == "share"  # files rarely have this key: `easy: 0.7`
        advice = {"value_error": problem.why, "extra_forbidden": "unknown key"}.get(problem.error_type, _ADVICE)
        if is_share and settings.get("share") is None:
            advice = "give each value a share, or none of them"
        key = ".".join(filter(None, (dimension, name, "" if is_share else problem.key)))
        raise UsageError(f"{key}: {advice}") from None
    return value if name or not value.words else value.model_copy(update={"name": _range_name(value.words)})


def _range_name(words: tuple[int, int]) -> str:
    return f"{words[0]} to {words[1]} words"
