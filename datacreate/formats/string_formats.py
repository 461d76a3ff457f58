"""The values of `format`: which a grammar holds, and which validation can check.

jsonschema checks date, email, idn-email, ipv4, ipv6, regex and uuid by itself; time and date-time are added
here, since grammars hold them. With the package extra `jsonschema[format-nongpl]` it also checks hostname,
uri, duration and others. A format that cannot be checked is refused when a task format is read.
"""

from __future__ import annotations

import re
from datetime import datetime

from jsonschema import Draft202012Validator, FormatChecker

IN_GRAMMAR = frozenset({"date", "time", "date-time", "uuid"})
"""What llama.cpp's converter knows; it takes any other format for free text."""

FORMAT_CHECKER = FormatChecker(())
FORMAT_CHECKER.checkers = dict(Draft202012Validator.FORMAT_CHECKER.checkers)  # a copy: nothing global changes

_TIME = r"\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})"
_DATE_TIME = re.compile(rf"\d{{4}}-\d{{2}}-\d{{2}}[Tt ]{_TIME}", re.ASCII)


@FORMAT_CHECKER.checks("date-time", ValueError)
def _is_date_time(value: object) -> bool:
    """RFC 3339, with an offset, without leap seconds."""
    if not isinstance(value, str):
        return True
    return _DATE_TIME.fullmatch(value) is not None and bool(datetime.fromisoformat(value.upper()))


@FORMAT_CHECKER.checks("time", ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or _is_date_time(f"2000-01-01T{value}")
