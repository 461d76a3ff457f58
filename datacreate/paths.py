"""Where files are: the shipped ones, and the data directory.

Shipped files (`models/`, `schemas/`, `data/`) lie beside the package in a checkout and inside it in an
installed wheel. The data directory holds what is kept between runs (models from mirrors, imported
benchmarks): `$DATACREATE_HOME`, by default the platform's user data directory; on a cluster, a
shared folder.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).resolve().parent


@cache
def shipped(*parts: str) -> Path:
    """The path of a shipped file or folder, e.g. `shipped("schemas")`."""
    installed = _PACKAGE / "_shipped"
    root = installed if installed.is_dir() else _PACKAGE.parent
    return root.joinpath(*parts)


def data_dir() -> Path:
    """The data directory; it need not exist yet."""
    chosen = os.environ.get("DATACREATE_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("datacreate"))
