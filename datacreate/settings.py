"""Declares a setting once: a pydantic field with its help text, option group and flag.

`datacreate.cli.options` makes the command line options, the keys of `--config` files and the environment
variables from these declarations; docs/cli.md follows from the options.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from datacreate.errors import UsageError
from datacreate.files import read_short_text
from datacreate.messages import EMPTY_PATH, did_you_mean

_MAX_SHOWN = 80  # characters of a rejected value in a message
_MAX_TEXT_BYTES = 64 << 10  # of a text, or of the file of @FILE
_MAX_SUM_ERROR = 1e-6  # of shares that are sums of rounded numbers
_PYDANTIC_PREFIX = "Input should be "  # of most messages of pydantic

OptionGroup = Literal["input", "output", "strategy", "quality", "training", "sampling", "engine", "run control"]
"""The headings of options in `--help`, in order."""


def setting(
    help_text: str,
    group: OptionGroup,
    *,
    default: Any = None,
    flag: str | None = None,
    metavar: str | None = None,
    shown_default: str | None = None,
    **constraints: Any,
) -> Any:
    """A field of `Settings` that is also a command line option.

    `help_text` is one sentence; `group` is its heading in `--help`. A `default` of `...` makes it required.
    `flag` is needed where it is not the field's name (`--exact/--no-exact`); `shown_default` says what an
    unset value means. `constraints` go to pydantic's `Field`: `gt=0`, `le=1`.
    """
    extra: Any = {"group": group, "flag": flag, "metavar": metavar or "", "shown_default": shown_default}
    return Field(default, description=help_text, json_schema_extra=extra, **constraints)


class FrozenModel(BaseModel):
    """An immutable document; an unknown key is an error, so that no misspelled one is ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(FrozenModel):
    """Settings that belong together, checked when they are made."""

    @field_validator("*", mode="wrap")
    @classmethod
    def _convert(cls, value: Any, convert: ValidatorFunctionWrapHandler) -> Any:
        """The converted value; ValueError for a number made of true or false, or a path made of an empty text."""
        converted = convert(value)
        given, paths = (part if isinstance(part, (list, tuple)) else (part,) for part in (value, converted))
        if "" in given and any(isinstance(path, Path) for path in paths):  # it would be the current folder
            raise ValueError(EMPTY_PATH)
        if isinstance(value, bool) and isinstance(converted, (int, float)) and not isinstance(converted, bool):
            raise ValueError("give a number")
        return converted

    @classmethod
    def of(cls, **values: Any) -> Self:
        """The settings with these values. Raises UsageError, in one line, for the first wrong value."""
        try:
            return cls(**values)
        except ValidationError as error:
            problem = SettingsProblem.first(error)
            if problem.error_type == "extra_forbidden":
                hint = did_you_mean(problem.key, cls.model_fields)
                raise UsageError(f"{problem.key}: no such setting{hint}") from None
            raise UsageError(problem.on_command_line(cls.flags())) from None

    @classmethod
    def flags(cls) -> dict[str, str]:
        """The flag of every field: `max_tokens` -> `--max-tokens`."""
        return {name: option_flag(cls, name).partition("/")[0] for name in cls.model_fields}

    def first_changed_flag(self, names: Iterable[str]) -> str | None:
        """The flag of the first of these settings that differs from its default."""
        for name in names:
            field = type(self).model_fields.get(name)
            if field is not None and getattr(self, name) not in (None, field.default):
                return self.flags()[name]
        return None

    def as_options(self) -> dict[str, Any]:
        """All settings by option name, as a `--config` file holds them; automatic ones are omitted."""
        values = self.model_dump(mode="json")
        options = {}
        for name, field in type(self).model_fields.items():
            value, info = values[name], option_info(type(self), name)
            is_off = value is None and info.get("metavar", "").endswith("|off")
            if info and (value or is_off or getattr(self, name) != field.default):
                options[self.flags()[name].removeprefix("--")] = "off" if is_off else value
        return options


def option_info(model: type[BaseModel], name: str) -> dict[str, Any]:
    """The group, flag, metavar and default of a field declared with `setting`; {} for another field."""
    extra = model.model_fields[name].json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def option_flag(model: type[BaseModel], name: str) -> str:
    """The declared option of a field: `--max-tokens`, `--exact/--no-exact`."""
    return option_info(model, name).get("flag") or f"--{name.replace('_', '-')}"


def as_texts(value: Any) -> list[str]:
    """A value in the notation of the command line; several texts for an option that is given several times."""
    if isinstance(value, Mapping):
        return [f"{key}={as_argument(part)}" for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return [as_argument(part) for part in value] or ["none"]
    return [as_argument(value)]


def as_argument(value: Any) -> str:
    """One argument of the command line."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(as_argument, value))
    if value is None:
        return "off"
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_arguments(model: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    """Values by field name as command line arguments: `--max-num-seqs 32 --no-exact`."""
    arguments: list[str] = []
    for name, value in values.items():
        flag, _, negative = option_flag(model, name).partition("/")
        if isinstance(value, bool):
            arguments += filter(None, [flag if value else negative])
        elif value is not None or option_info(model, name)["metavar"].endswith("|off"):
            for text in as_texts(value):
                arguments += [flag, text]
    return arguments


def _pairs(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _comma_text(part) for name, part in value.items()}
    texts = [value] if isinstance(value, str) else map(str, value)
    return _mapping((text.partition("=") for text in texts), "write it as NAME=VALUE, not {text}")


def _comma_text(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    if any("," in str(part) for part in value):
        raise ValueError("no value of a list may have a comma")
    return ",".join(map(str, value))


def _shares(value: Any) -> Any:
    if value is None or isinstance(value, Mapping):
        return value
    texts = [value] if isinstance(value, str) else value
    # A comma separates pairs only after a share: a label can have one.
    pairs = (pair for text in texts for pair in re.sub("(=[^,]*),", "\\1\0", text).split("\0"))
    return _mapping((pair.rpartition("=") for pair in pairs), "write it as NAME=0.7,NAME=0.3")


def _mapping(pairs: Iterable[tuple[str, str, str]], advice: str) -> dict[str, str]:
    """A mapping of texts that were cut at `=`. ValueError with the advice if a text has no name or no value."""
    values: dict[str, str] = {}
    for text_before, equals, value in pairs:
        name = text_before.strip()
        if not (name and value):
            raise ValueError(advice.replace("{text}", text_before + equals + value))
        if name in values:
            raise ValueError(f"{name} is given twice; give it once")
        values[name] = value
    return values


def check_shares(where: str, shares: Mapping[str, float]) -> None:
    """Raise UsageError, which starts with `where`, unless the shares are at least 0 and add up to 1."""
    if negative := [f"{name}={share:g}" for name, share in shares.items() if share < 0]:
        raise UsageError(f"{where} {negative[0]}: give a share of at least 0")
    total = sum(shares.values())
    if not abs(total - 1) <= _MAX_SUM_ERROR:  # also for NaN
        raise UsageError(f"{where}: the shares add up to {total:g}; give shares that add up to 1")


def _json_pairs(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value
    return {name: _json_or_text(text) for name, text in _pairs(value).items()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _parts(value: Any) -> Any:
    if isinstance(value, (str, int, float)):
        value = [value]
    parts = (part.strip() for text in value for part in str(text).split(","))
    return tuple(dict.fromkeys(parts))


def _text_or_file(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if os.path.isfile(value):  # noqa: PTH113 - Path.is_file raises OSError for a long text
        raise ValueError(f"this is a file; did you mean @{value}?")
    text = read_short_text(Path(value[1:]), _MAX_TEXT_BYTES) if value.startswith("@") else value
    text = "\n".join(text.splitlines()).strip()
    if not text:
        raise ValueError("empty; give a text, or @FILE with one")
    if len(text.encode("utf-8", "replace")) > _MAX_TEXT_BYTES:
        raise ValueError(f"longer than {_MAX_TEXT_BYTES >> 10} KiB; give a shorter text")
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text):
        raise ValueError("control characters or invalid UTF-8; give a plain text")
    return text


OrOff = BeforeValidator(lambda value: None if value == "off" or value is False else value)
"""Takes the word `off` and false for None."""

CommaList = BeforeValidator(_parts)
"""Takes `a,b` texts for a tuple of their different parts."""

Pairs = Annotated[dict[str, str], BeforeValidator(_pairs)]
"""A mapping, or `NAME=VALUE` texts; a list as a value of a mapping stands for `a,b`."""

JsonPairs = Annotated[dict[str, Any], BeforeValidator(_json_pairs)]
"""A mapping, or `NAME=VALUE` texts whose values are JSON if they can be read as such."""

Shares = Annotated[dict[str, float], BeforeValidator(_shares)]
"""A mapping, or `NAME=0.7,NAME=0.3` texts; see `check_shares`."""

TextOrFile = Annotated[
    str,
    BeforeValidator(_text_or_file),
    PlainSerializer(lambda text: f" {text}" if text.startswith("@") else text),  # not read again as a file name
]
"""A text, or `@FILE` for the text of a file; without outer space, and with "\\n" as line ends."""


@dataclass(frozen=True)
class SettingsProblem:
    """The first wrong value of settings; `path` is () if settings contradict each other."""

    path: tuple[int | str, ...]
    value: object
    why: str
    error_type: str  # pydantic's name of the error, such as `extra_forbidden`

    @classmethod
    def first(cls, error: ValidationError) -> SettingsProblem:
        """The first problem; an unknown key comes before a missing key, of which it may be a misspelling."""
        problems = error.errors(include_url=False)
        problem = problems[0]
        if problem["type"] == "missing":
            problem = next((other for other in problems if other["type"] == "extra_forbidden"), problem)
        why = problem["msg"].removeprefix("Value error, ")
        return cls(problem["loc"], problem["input"], why, problem["type"])

    @property
    def key(self) -> str:
        """The path in the notation of files: `train.epochs`; "" for a contradiction."""
        return ".".join(map(str, self.path))

    @property
    def remedy(self) -> str:
        """`give a number greater than 0` for pydantic's `Input should be greater than 0`."""
        if not self.why.startswith(_PYDANTIC_PREFIX):
            return self.why
        valid = re.split(", unable to| or instance of", self.why.removeprefix(_PYDANTIC_PREFIX))[0]
        valid = valid.replace("valid tuple", "list: [a, b]").replace("valid dictionary", "mapping: {a: b}")
        return f"give {'a number ' if valid.startswith(('greater', 'less')) else ''}{valid}"

    def on_command_line(self, flags: Mapping[str, str]) -> str:
        """A message of one line: flag, value and remedy; for contradictions, the message of the validator.

        `flags` has the flag of each field whose flag has another name.
        """
        if not self.path:
            return self.why
        field = str(self.path[0])
        flag = flags.get(field, f"--{field.replace('_', '-')}")
        if self.error_type == "missing":
            return f"{flag}: this option is required"
        argument = ",".join(as_texts(self.value))
        if len(self.path) > 1 and isinstance(self.path[1], str):  # of a mapping
            argument = f"{self.path[1]}={argument}"
        if len(argument) > _MAX_SHOWN:
            argument = argument[:_MAX_SHOWN] + "…"
        return f"{flag} {argument}".rstrip() + f": {self.remedy}"
