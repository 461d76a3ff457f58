"""A report as JSON: every field of `tables.Report`, by its name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from datacreate.reporting.tables import Report


def as_json(report: Report) -> str:
    """The document, ended by a new line; shares are in [0, 1], counts by depth have text keys."""
    return json.dumps(_plain(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
