"""What the libraries may do by themselves, and what can be reached; the latter only when asked for."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping

from datacreate.doctor.line import Line
from datacreate.offline import NO_DOWNLOADS, NO_TELEMETRY

SECTION = "network"

_PATIENCE_SECONDS = 5.0


def network(*, tried: bool) -> list[Line]:
    """Lines about switches in force, and reachability; a network is used only if `tried` is set."""
    lines = [
        _switches("downloads", NO_DOWNLOADS, "no library fetches by itself"),
        _switches("telemetry", NO_TELEMETRY, "no library reports that it is used"),
    ]
    if not tried:
        return [*lines, Line(SECTION, "reachable", "note", "not tried", "datacreate doctor --network")]
    return [*lines, _reached("Hub", _hub()), _reached("package index", _index())]


def _switches(name: str, wanted: Mapping[str, str], meaning: str) -> Line:
    """Whether they are in force in this process, which is one like all of datacreate's."""
    loose = [each for each, value in wanted.items() if os.environ.get(each) != value]
    if loose:
        fix = "export " + " ".join(f"{each}={wanted[each]}" for each in loose)
        return Line(SECTION, name, "red", f"{', '.join(loose)} not in force: a library could call out", fix)
    shown = " ".join(f"{each}={value}" for each, value in wanted.items())
    return Line(SECTION, name, "ok", f"off in all of datacreate's processes, {meaning}: {shown}")


def _reached(name: str, url: str) -> Line:
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # an answer, whatever it says
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return Line(SECTION, name, "note", f"{url} is out of reach ({reason}); carry files in by hand")
    return Line(SECTION, name, "ok", f"{url} answers")


def _hub() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _index() -> str:
    """A small page of the index that pip, as this machine has it set up, fetches from.

    pip names the index in its own help.
    """
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--help"],
        env={**os.environ, "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.search(r"--index-url.*?\(default\s+([^\s)]+?)\)", asked.stdout, re.DOTALL)
    return f"{told[1].rstrip('/')}/pip/" if told else ""
