"""Find a plan and read it; what is wrong with it in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from datacreate.errors import PlanError
from datacreate.paths import shipped
from datacreate.settings import SettingsError
from datacreate.sweep.names import near
from datacreate.sweep.options import CREATE_OPTIONS, TrainOptions
from datacreate.sweep.plan import Plan


def load_plan(name_or_path: str) -> Plan:
    """A plan from a file, or one that is shipped, by its name.

    Raises PlanError in one line, naming the file and the key.
    """
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        path = _shipped_plan(name_or_path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"plan {path}: cannot be read as text ({error})") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise PlanError(f"plan {path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise PlanError(
            f"plan {path}: not a mapping of settings; `datacreate sweep --help` says where examples are"
        )
    try:
        return Plan.model_validate(
            {"name": path.stem, **{str(key): value for key, value in raw.items()}},
            context={"folder": path.absolute().parent},
        )
    except ValidationError as error:
        raise PlanError(f"plan {path}: {_said(error)}") from None


def _shipped_plan(name: str) -> Path:
    names = [path.stem for path in sorted(shipped("data", "plans").glob("*.yaml"))]
    if name in names:
        return shipped("data", "plans", f"{name}.yaml")
    raise PlanError(
        f"{name}: no such file, and no shipped plan{near(name, names)}; shipped are {', '.join(names)}"
    )


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error, and not the last one."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    for place, key in enumerate(keys):
        if isinstance(key, str) and key in keys[:place]:
            raise yaml.MarkedYAMLError(
                problem=f"key {key} is there twice", problem_mark=node.value[place][0].start_mark
            )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _said(error: ValidationError) -> str:
    """The first thing that is wrong, in one line, and how many more there are."""
    flaw = SettingsError.first(error)
    where, message = flaw.place, flaw.why
    if flaw.kind == "extra_forbidden":
        known = (TrainOptions if len(where) > 1 else Plan).model_fields
        name = str(where[-1])
        also = " (an option of `create`: put it under create)" if name in CREATE_OPTIONS else ""
        message = f"there is no such key{near(name, known) or also}"
    elif flaw.kind == "missing":
        message = "this key is needed"
    elif flaw.kind != "value_error" and len(shown := repr(flaw.given)) <= 60:
        message = f"{message}, not {shown}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{flaw.key}{': ' if where else ''}{message}{more}"
