"""The command line in guarded processes, and what they took down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datacreate.offline import NO_DOWNLOADS, NO_TELEMETRY, OURS
from tests.guard import LOG
from tests.process import ROOT, Ended

SWITCHES = NO_DOWNLOADS | NO_TELEMETRY


@dataclass
class Guarded:
    """Runs commands, each process of which is guarded, and so are those that it starts."""

    log: Path
    before: Sequence[str] = ()  # what the command is put behind
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: object, module: str = "datacreate", code: int | None = 0) -> Ended:
        """`python -m module ARGUMENTS`, to its end, which must have that exit code; None: any."""
        # As a user has it who never heard of the switches.
        ours = {name: text for name, text in os.environ.items() if name not in {*SWITCHES, OURS}}
        paths = os.pathsep.join([str(Path(__file__).parent / "guarded"), str(ROOT)])
        ended = subprocess.run(
            [*self.before, sys.executable, "-m", module, *map(str, arguments)],
            env={**ours, **self.environment, "PYTHONPATH": paths, LOG: str(self.log)},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert code in (None, ended.returncode), ended.stderr
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def noted(self, what: str) -> list[dict[str, Any]]:
        """The lines of one kind: `call`, `import` or `end`."""
        lines = map(json.loads, self.log.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line["what"] == what]

    @property
    def called(self) -> set[tuple[str, str]]:
        """(event, host) of all that was not this machine."""
        return {(call["event"], call["host"]) for call in self.noted("call")}


def unset(line: dict[str, Any]) -> list[str]:
    """The switches that a process had not set."""
    return [name for name, value in SWITCHES.items() if line["environment"].get(name) != value]
