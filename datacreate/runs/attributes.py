"""Attributes: dimensions in which the examples vary, such as topic or length, read from `--attributes FILE.yaml`.

Each request is written for one value of each dimension; `AttributeQuotas` in verification/quotas.py keeps the shares.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from datacreate.errors import UsageError
from datacreate.files import read_yaml
from datacreate.formats.example import dotted
from datacreate.formats.text_normalization import words
from datacreate.messages import did_you_mean
from datacreate.settings import FrozenModel, SettingsError, check_shares

if TYPE_CHECKING:  # jsonschema, which they import, would make `--help` slow
    from datacreate.formats.task_format import TaskFormat
    from datacreate.formats.validate import Candidate, Reject

_HOW = "write it as `topic: [sport, politics]`, `level: {easy: 0.7, hard: 0.3}` or `length: {words: [5, 40]}`"


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
    candidate: Candidate, attributes: Mapping[str, str], dimensions: Attributes, format: TaskFormat
) -> Reject | None:
    """A reject if the example was written for a range of words and its inputs have fewer or more.

    `attributes`: the value of each dimension. A context that was given with the request does not count.
    """
    from datacreate.formats.validate import Reason, Reject, shorten

    chosen = (value for each in dimensions for value in each.values if attributes[each.name] == value.name)
    fewest, most = next((value.words for value in chosen if value.words), (0, None))
    if most is None:
        return None
    number = len(words(candidate.question if format.context_is_given else candidate.text, None))
    if fewest <= number <= most:
        return None
    detail = f"{number} words, expected {fewest} to {most}"
    return Reject(Reason.WRONG_LENGTH, shorten(candidate.example.values), detail)


class _Entry(FrozenModel):
    """What a file says of one value."""

    share: Annotated[float, Field(ge=0, le=1)] | None = None
    words: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None


class _WrongEntry(UsageError):
    """Something is wrong at these keys of the document."""

    def __init__(self, keys: Sequence[str], why: str) -> None:
        super().__init__(why)
        self.keys = keys


def read_attributes(path: Path) -> Attributes:
    """The dimensions in a YAML file. Raises UsageError, in one line with the number of the line, if one is wrong."""
    try:
        document = read_yaml(path)
    except ValueError as error:
        raise UsageError(f"--attributes {path}: {error}") from None
    if not isinstance(document, Mapping) or not document:
        raise UsageError(f"--attributes {path}: no dimensions; {_HOW}")
    try:
        return parse_attributes(document)
    except _WrongEntry as error:
        line, names = _line(path, error.keys), ".".join(filter(None, error.keys))
        where = f"line {line}: {names}" if names else f"line {line}"
        raise UsageError(f"--attributes {path}, {where}: {error}") from None


def parse_attributes(document: Mapping[Any, Any]) -> Attributes:
    """The dimensions of the document of an attributes file."""
    dimensions = tuple(_dimension(str(name).strip(), entry) for name, entry in document.items())
    names = [each.name.casefold() for each in dimensions]
    if twice := [each.name for at, each in enumerate(dimensions) if names[at] in names[:at]]:
        raise _WrongEntry(twice[:1], "this dimension is given twice; give it once")
    with_words = [each.name for each in dimensions if any(value.words for value in each.values)]
    if with_words[1:]:
        raise _WrongEntry(
            with_words[1:2], f"words stand in {with_words[0]}, too; give one range for each example"
        )
    return dimensions


def _dimension(name: str, entry: Any) -> Dimension:
    entries: list[tuple[Any, Any]]
    _check_text([name], name)
    if isinstance(entry, list):
        entries = [(value, None) for value in entry]
    elif isinstance(entry, Mapping) and _Entry.model_fields.keys() & entry.keys():
        entries = [(None, entry)]
    elif isinstance(entry, Mapping):
        entries = list(entry.items())
    else:
        raise _WrongEntry([name], _HOW)
    parsed: dict[str, _Entry] = {}
    for value, given in entries:
        if isinstance(value, list | Mapping):
            raise _WrongEntry([name], "a value is a text; write other ones as `name: {words: [5, 40]}`")
        keys = [name, *([] if value is None else [str(value)])]
        found = _entry(keys, given)
        text = str(value).strip() if value is not None else _range_name(found.words or (0, 0))
        if value is None and not found.words:
            text = ""
        _check_text([name], text, "a value is empty; give it a name")
        if twice := [other for other in parsed if other.casefold() == text.casefold()]:
            raise _WrongEntry([name], f"the value {twice[0]} is given twice; give it once")
        parsed[text] = found
    if len(parsed) < 2 and not any(found.words for found in parsed.values()):
        raise _WrongEntry(
            [name], "give at least two values; what all examples have in common is an --instruction"
        )
    shares = {text: found.share for text, found in parsed.items() if found.share is not None}
    if missing := [text for text in parsed if shares and text not in shares]:
        raise _WrongEntry([name], f"no share for {missing[0]}; give each value one, or none of them")
    try:
        check_shares("", shares or {"": 1})
    except UsageError as error:
        raise _WrongEntry([name], str(error).removeprefix(": ").strip()) from None
    return Dimension(
        name=name,
        values=tuple(
            AttributeValue(name=text, share=shares.get(text, 1 / len(parsed)), words=found.words)
            for text, found in parsed.items()
        ),
    )


def _check_text(keys: Sequence[str], text: str, empty: str = "a dimension is empty; give it a name") -> None:
    if not text:
        raise _WrongEntry(keys, empty)
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text):
        raise _WrongEntry(keys, "line ends or control characters; write names and values on one line")


def _entry(keys: Sequence[str], given: Any) -> _Entry:
    if given is None:
        given = {}
    elif isinstance(given, int | float) and not isinstance(given, bool):
        given = {"share": given}
    elif not isinstance(given, Mapping):
        hint = did_you_mean(keys[-1], _Entry.model_fields)
        raise _WrongEntry(keys, f"give a share, such as 0.5, or {{words: [5, 40]}}{hint}")
    try:
        found = _Entry(**{str(key): value for key, value in given.items()})
    except ValidationError as error:
        wrong = SettingsError.first(error)
        key = str(wrong.path[0])
        if wrong.kind == "extra_forbidden":
            hint = did_you_mean(key, _Entry.model_fields) or f" (known: {', '.join(_Entry.model_fields)})"
            raise _WrongEntry([*keys, key], f"unknown key{hint}") from None
        how = "two whole numbers, as [5, 40]" if key == "words" else "a number from 0 to 1"
        raise _WrongEntry([*keys, key], f"give {how}") from None
    if found.words and found.words[0] > found.words[1]:
        raise _WrongEntry(
            [*keys, "words"], "the first number is larger than the second; write [fewest, most]"
        )
    return found


def _range_name(words: tuple[int, int]) -> str:
    return f"{words[0]} to {words[1]} words"


def _line(path: Path, keys: Sequence[str]) -> int:
    """The line of the innermost of these keys that is found; from 1."""
    import yaml

    node, line = yaml.compose(path.read_text(encoding="utf-8")), 1
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        for at, inner in pairs:
            if at.value.strip() == key:
                node, line = inner, at.start_mark.line + 1
    return line
