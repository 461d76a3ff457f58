"""Runs the command line in this process, which is faster than `tests.support.process.run`.

Tests of signals, kills, imports and standard streams need a process.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from datacreate import signals
from datacreate.cli.main import main
from datacreate.creation import run_models as models
from tests.support.driver import client_of
from tests.support.process import Ended, unverified


def run(*arguments: object, **scripted: Any) -> Ended:
    """Run the command with a scripted client (see `tests.support.driver`)."""
    with scripted_client(scripted):
        return typed(*unverified(arguments))


@contextmanager
def scripted_client(scripted: dict[str, Any]) -> Iterator[None]:
    """Replace every local engine in this block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "make_client", lambda *_, **__: client_of(scripted))
        yield


def typed(*words: str) -> Ended:
    """Run `datacreate WORDS`."""
    code: object = None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    in_main_thread = threading.current_thread() is threading.main_thread()  # a step of a sweep is not
    with pytest.MonkeyPatch.context() as patch, CliRunner().isolation() as (out, err, _):
        patch.setattr(sys, "argv", ["datacreate", *words])
        patch.setattr(signals, "_current", None)
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        for number, handler in handlers.items() if in_main_thread else ():
            signal.signal(number, handler)
        sys.stdout.flush()
        sys.stderr.flush()
        said = [stream.getvalue().decode("utf-8") for stream in (out, err)]
    assert isinstance(code, int)
    return Ended(code, *said)
