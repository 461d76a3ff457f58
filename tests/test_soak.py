"""The proof scripts/prove/soak, shortened."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.process import ROOT


@pytest.mark.slow
def test_creation_survives_failing_servers_and_kills() -> None:
    command = [sys.executable, ROOT / "scripts" / "prove" / "soak", "--minutes", "3"]
    soak = subprocess.run(command, capture_output=True, text=True)
    assert soak.returncode == 0, soak.stdout + soak.stderr
    assert "FAILED" not in soak.stdout
