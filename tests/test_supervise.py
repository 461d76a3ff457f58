"""Processes that scripts/test starts end with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux to end children")

SUPERVISE = "import sys; from tests.support import supervise; supervise.GRACE_SECONDS = 0.5; "
SUPERVISE += "sys.exit(supervise.main(sys.argv[1:]))"
LEAVES_ONE = ["sh", "-c", "setsid sleep 600 & echo ready"]
WAITS = ["sh", "-c", "(trap '' TERM; setsid sleep 600) & echo ready; wait"]


def supervised(*command: str) -> list[str]:
    return [sys.executable, "-c", SUPERVISE, *command]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_all_processes_end_with_the_supervisor_or_its_parent(number: int) -> None:
    command = supervised(*WAITS)
    if number == signal.SIGKILL:  # to the parent of the supervisor
        command = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *command]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.stdout.read() == b""  # until no process has it open
    assert process.wait() == (128 + number if number != signal.SIGKILL else -number)


def test_a_command_that_leaves_processes_has_failed() -> None:
    ended = subprocess.run(supervised(*LEAVES_ONE), capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stdout) == (1, "ready\n")
    assert ended.stderr == "left behind:\n  sleep 600\n"


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("exit 0", 0), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_commands(script: str, code: int) -> None:
    assert subprocess.run(supervised("sh", "-c", script), cwd=ROOT).returncode == code
