"""Command line options made from settings, help in groups, and `--config` files."""

from __future__ import annotations

import functools
import os
import re
import types
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from click.core import ParameterSource

from datacreate.cli.group import COMMANDS
from datacreate.cli.terminal import say
from datacreate.errors import UsageError
from datacreate.files import read_yaml
from datacreate.libraries import NO_DOWNLOADS
from datacreate.messages import EMPTY_PATH, did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from datacreate.settings import OptionGroup

F = TypeVar("F", bound=Callable[..., Any])

_VARIABLES_WITHOUT_OPTION = "API_KEY COMMAND HOME RESTARTS SCRATCH SUPERVISED SWEEP_STEP".split()
"""Suffixes of the DATACREATE_... variables that set no option."""

_CONFIG_PATH = "datacreate.config"  # the key of the path of --config in `click.Context.meta`
_NUMERIC_METAVARS = {int: "INTEGER", float: "NUMBER"}


class TextType(click.ParamType[str]):
    """Text that pydantic converts; an environment variable holds several values one per line."""

    name = "text"

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        return rv.splitlines()


class Option(click.Option):
    """An option under one of the headings of `--help`, also set by the variable DATACREATE_COMMAND_OPTION."""

    def __init__(self, *arguments: Any, group: OptionGroup, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.group = group

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        return os.environ.get(_variable_name(self, ctx)) or None


class Command(click.Command):
    """A command whose `--help` lists options by group, and which refuses options that would be ignored.

    Only one that `downloads` lets libraries ask the Hub for files.
    """

    def __init__(self, *arguments: Any, downloads: bool = False, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.downloads = downloads

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from datacreate.settings import OptionGroup  # slow to import

        records: dict[str, list[tuple[str, str]]] = {group: [] for group in get_args(OptionGroup)}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                records[getattr(param, "group", "run control")].append(record)
        for group, lines in records.items():
            if lines:
                with formatter.section(f"{group.capitalize()} options"):
                    formatter.write_dl(lines)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for param, times in Counter(order).items():
            if times > 1 and isinstance(param, click.Option) and not param.multiple:
                raise click.UsageError(f"{param.opts[0]}: given {times} times; give it once", ctx)
        _warn_about_variables(ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        if not self.downloads:
            os.environ.update(NO_DOWNLOADS)
        try:
            return super().invoke(ctx)
        except UsageError as error:
            if source := _source_of(str(error), ctx):
                raise type(error)(f"{source}: {error}") from None
            raise


def _source_of(message: str, context: click.Context) -> str:
    """The file or variable that set the option at the start of a message; "" if that is not where it was set."""
    flag = re.match(r"--[\w-]+", message)
    for param in context.command.params:
        if flag and flag[0] in (*param.opts, *param.secondary_opts):
            source = context.get_parameter_source(str(param.name))
            if source is ParameterSource.DEFAULT_MAP:
                return f"--config {context.meta[_CONFIG_PATH]}"
            if source is ParameterSource.ENVIRONMENT:
                return f"${_variable_name(param, context)}"
    return ""


def _variable_name(option: click.Parameter, context: click.Context) -> str:
    """The environment variable of an option: DATACREATE_CREATE_URL for --url of `create`."""
    return f"{context.auto_envvar_prefix}_{_config_key(option)}".upper().replace("-", "_")


def _warn_about_variables(context: click.Context) -> None:
    """Warn about variables named like those of datacreate that nothing reads."""
    prefix = f"{context.auto_envvar_prefix}_"
    others = tuple(f"DATACREATE_{name.upper()}_" for name in COMMANDS)
    read = {_variable_name(param, context) for param in context.command.params if isinstance(param, Option)}
    read |= {f"DATACREATE_{name}" for name in _VARIABLES_WITHOUT_OPTION}
    for name in sorted(set(os.environ) - read):
        if name.startswith(prefix) or (name.startswith("DATACREATE_") and not name.startswith(others)):
            say(f"warning: ${name} has no effect: no such option or variable")


command = functools.partial(click.command, cls=Command)


def option(*names: str, group: OptionGroup = "run control", **attributes: Any) -> Callable[[F], F]:
    """An option of a command, under the heading `group` of its `--help`; `attributes` are those of click."""
    return click.option(*names, cls=Option, group=group, **attributes)


class PathType(click.Path):
    """A path, not empty; with this ending."""

    def __init__(self, ending: str = "") -> None:
        super().__init__(path_type=Path)
        self._ending = ending

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail(EMPTY_PATH, param, ctx)
        if not str(value).endswith(self._ending):
            self.fail(f"{value} must end in {self._ending}", param, ctx)
        return super().convert(value, param, ctx)


path_argument = functools.partial(click.argument, type=PathType())
path_option = functools.partial(option, type=PathType())


def file_option(flag: str, ending: str, help_text: str) -> Callable[[F], F]:
    """A file to write, whose name has this ending: a wrong argument must not replace another file."""
    return option(flag, type=PathType(ending), metavar=f"FILE{ending}", group="output", help=help_text)


def json_option(help_text: str = "Print the result as JSON.") -> Callable[[F], F]:
    """The option `--json`."""
    return option("--json", "as_json", is_flag=True, help=help_text)


def settings_options(
    model: type[BaseModel],
    parameter: str = "given_options",
    without: Iterable[str] = (),
    *,
    only: Iterable[str] | None = None,
    shown_default: str | None = None,
) -> Callable[[F], F]:
    """Options for all settings of `model`, or for those in `only`.

    This `parameter` of the command gets the options that the user gave, as a mapping. `shown_default` is the default of
    all options in the help text, instead of that of the setting.
    """
    from datacreate.settings import option_info

    names = [name for name in only or model.model_fields if name not in without and option_info(model, name)]

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **values: Any) -> Any:
            own_values = {name: values.pop(name) for name in names}
            given_values = {name: value for name, value in own_values.items() if value not in (None, ())}
            return function(*arguments, **values, **{parameter: given_values})

        decorated: Any = wrapped
        for name in reversed(names):
            decorated = _option_of_setting(model, name, shown_default)(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _option_of_setting(model: type[BaseModel], name: str, shown_default: str | None) -> Callable[[F], F]:
    """The option for a setting: its type follows from the type of the field."""
    from datacreate.settings import option_flag, option_info

    field, info, flag = model.model_fields[name], option_info(model, name), option_flag(model, name)
    value_types = _types_in(field.annotation)
    help_text = field.description
    default = shown_default or info["shown_default"] or _default_text(field, flag, info["metavar"])
    if default is not None:
        help_text = f"{help_text}  [default: {default}]"
    attributes: dict[str, Any] = {"help": help_text, "group": info["group"], "required": field.is_required()}
    if bool in value_types:
        return option(flag, name, is_flag=True, default=None, **attributes)
    choices = [each for each in value_types if isinstance(each, str)]
    takes_several = tuple in value_types or dict in value_types
    metavar = next((word for each, word in _NUMERIC_METAVARS.items() if each in value_types), None)
    if choices and not metavar:
        attributes["type"] = click.Choice(choices)
    else:
        is_one_path = Path in value_types and not takes_several
        attributes |= {"type": PathType() if is_one_path else TextType(), "metavar": info["metavar"] or metavar}
    return option(flag, name, multiple=takes_several, default=None, **attributes)


def _default_text(field: FieldInfo, flag: str, metavar: str) -> str | None:
    """The default of a setting as its help shows it; None if there is none worth showing."""
    default = field.default
    if field.is_required() or default in ((), {}) or default is False:
        return None
    if default is None:
        return "off" if "off" in metavar else None
    return flag.partition("/")[0] if default is True else str(default)


def _types_in(annotation: Any) -> list[Any]:
    """The types of a union, in order. Of a Literal these are its words."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [each for part in get_args(annotation) for each in _types_in(part)]
    if origin is Annotated:
        return _types_in(get_args(annotation)[0])
    return list(get_args(annotation)) if origin is Literal else [origin or annotation]


def config_option(function: F) -> F:
    """`--config FILE.yaml`: options from a file; the command line and the environment take precedence."""
    help_text = "Read options from this YAML file (keys are option names); the command line takes precedence."
    eager_callback: dict[str, Any] = {"is_eager": True, "expose_value": False, "callback": _read_config}
    return option("--config", type=PathType(), metavar="FILE.yaml", help=help_text, **eager_callback)(function)


def _read_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make the options of the file at `path` the defaults of the command."""
    if path is None:
        return
    try:
        context.default_map = _config_values(context, read_yaml(path))
        context.meta[_CONFIG_PATH] = path
    except ValueError as error:
        raise click.UsageError(f"--config {path}: {error}", context) from None


def _config_values(context: click.Context, document: Any) -> dict[str, Any]:
    """The options of a file, by parameter, as click gets them from the command line. Raises ValueError."""
    if not isinstance(document, Mapping):
        raise ValueError("write it as `option: value`, one option per line")
    if isinstance(document.get("config"), Mapping):
        document = document["config"]  # what --dry-run --json prints
    params = {_config_key(param): param for param in context.command.params if param.name != "config"}
    values: dict[str, Any] = {}
    for key, value in document.items():
        name = str(key).replace("_", "-")
        if name not in params:
            hint = did_you_mean(name, params) or "; see --help for the options"
            raise ValueError(f"no option {key!r}{hint}")
        param = params[name]
        if param.name in values:
            raise ValueError(f"{key}: given twice; give it once")
        metavar = getattr(param, "metavar", None) or ""
        if (value is None and "off" not in metavar) or (value == [] and "none" not in metavar):
            continue  # not set
        try:
            values[str(param.name)] = _to_click_value(param, value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return values


def _config_key(param: click.Parameter) -> str:
    """The option's key in a config file: the long option, or the name of an argument."""
    return max(param.opts, key=len).lstrip("-").replace("_", "-")


def _to_click_value(param: click.Parameter, value: Any) -> Any:
    """A value of a file as click gets it from the command line. Raises ValueError if it has no such form."""
    from datacreate.settings import as_texts

    if getattr(param, "is_flag", False):
        if not isinstance(value, bool):
            raise ValueError("give true or false")
        return value
    takes_several = getattr(param, "multiple", False) or param.nargs != 1
    takes_pairs = "=" in (getattr(param, "metavar", None) or "")
    if isinstance(value, Mapping) and not takes_pairs:
        raise ValueError("give one value, not a mapping")
    if value is None or value is False:
        value = "off"
    for part in value.values() if isinstance(value, Mapping) else [value]:
        _check_values(param, part, may_have_commas=takes_several and part is value)
    texts = as_texts(value)
    if takes_pairs and isinstance(value, list) and not all("=" in text for text in texts):
        raise ValueError(f"write it as a mapping: `{_config_key(param)}: {{NAME: VALUE}}`")
    return texts if takes_several else ",".join(texts)


def _check_values(param: click.Parameter, values: Any, *, may_have_commas: bool) -> None:
    """Raise ValueError unless a value, or a list of values, can be written on the command line."""
    items = values if isinstance(values, list) else [values]
    if any(isinstance(item, (Mapping, list)) for item in items):
        raise ValueError("nested too deeply; give a value or a list of values")
    if None in items or any("\0" in str(item) for item in items):
        raise ValueError("give a value, not null")
    if isinstance(values, list) and not may_have_commas and any("," in str(item) for item in items):
        hint = "; write a label with one as `label: [FIELD=VALUE]`" if _config_key(param) == "labels" else ""
        raise ValueError(f"no value of a list may have a comma{hint}")
