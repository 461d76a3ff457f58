"""Commands in guarded processes (tests/support/guard.py), and what those processes tried to reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datacreate.libraries import NO_DOWNLOADS, NO_TELEMETRY
from tests.support.guard import LOG
from tests.support.process import ROOT, Ended

SWITCHES = NO_DOWNLOADS | NO_TELEMETRY


@dataclass
class Guarded:
    """Runs commands. Each process, and each process that it starts, appends to `log`."""

    log: Path
    prefix: Sequence[str] = ()  # of each command
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: object, module: str = "datacreate", code: int = 0) -> Ended:
        """`python -m module ARGUMENTS` without any switch of datacreate/libraries.py; checks the exit code."""
        inherited = {name: text for name, text in os.environ.items() if name not in SWITCHES}
        paths = os.pathsep.join([str(Path(__file__).parent / "guarded"), str(ROOT)])
        ended = subprocess.run(
            [*self.prefix, sys.executable, "-m", module, *map(str, arguments)],
            env={**inherited, **self.environment, "PYTHONPATH": paths, LOG: str(self.log)},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert ended.returncode == code, ended.stderr
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """The log lines of a kind: `call`, `import` or `end`."""
        lines = map(json.loads, self.log.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line["what"] == kind]

    @property
    def called(self) -> set[tuple[str, str]]:
        """(event, host) of each attempt to reach another machine."""
        return {(call["event"], call["host"]) for call in self.lines("call")}

    def missing_switches(self) -> set[tuple[str, ...]]:
        """Libraries that a process imported while a switch was not set, each with its switches."""
        found = set()
        for line in self.lines("import"):
            unset = [name for name, value in SWITCHES.items() if line["environment"].get(name) != value]
            if unset:
                found.add((line["library"], *line["command"][:5], *unset))
        return found
