"""The command line in this process: arguments, exit codes and output as with `tests.process.run`, at once.

For whatever is no matter of processes. What is (signals, kills, imports, a closed standard error) stays with
`tests.process`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from datacreate import run_models as models
from datacreate.cli.main import main
from tests.driver import engine_of
from tests.process import Ended


def run(*arguments: object, **scripted: Any) -> Ended:
    """The command with a scripted engine (see `tests.driver`), to its end."""
    words = list(map(str, arguments))
    creates = words[:1] in (["create"], ["preview"]) and "--help" not in words
    # The scripted engine writes random words, which nobody can verify; tests that want it say so.
    unverified = ["--verify", "off"] if creates and "--verify" not in words else []
    with scripted_engine(scripted):
        return typed(*words, *unverified)


@contextmanager
def scripted_engine(scripted: dict[str, Any]) -> Iterator[None]:
    """In the block every local engine is a scripted one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "make_engine", lambda *_, **__: engine_of(scripted))
        yield


def typed(*words: str) -> Ended:
    """`datacreate WORDS`, with whatever engine there is."""
    code: object = None
    with pytest.MonkeyPatch.context() as patch, CliRunner().isolation() as (out, err, _):
        patch.setattr(sys, "argv", ["datacreate", *words])
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
        sys.stderr.flush()
        said = [stream.getvalue().decode("utf-8") for stream in (out, err)]
    assert isinstance(code, int)
    return Ended(code, *said)
