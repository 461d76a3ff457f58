"""The partitions that SLURM has, before something is submitted to one that it has not."""

from __future__ import annotations

import subprocess
from pathlib import Path

from datacreate.cluster.settings import JobSettings, near
from datacreate.errors import SiteError

_PATIENCE_SECONDS = 20.0


def partitions() -> list[str] | None:
    """The names that `sinfo` knows; None where it is not here, or gets no answer."""
    try:
        said = subprocess.run(
            ["sinfo", "--all", "--noheader", "--format=%R"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return list(dict.fromkeys(said.stdout.split())) if said.returncode == 0 else None


def check_partitions(settings: JobSettings, path: Path) -> None:
    """SiteError if a job is for a partition that is not there; `path` is the file that says so."""
    wanted = settings.partition.split(",") if settings.partition else []
    known = partitions() if wanted else None
    for name in wanted if known else ():
        if known and name not in known:
            hint = near(name, known)
            listed = "" if "there are" in hint else f" There are {', '.join(known)}"
            raise SiteError(f"site settings {path}: SLURM has no partition {name}{hint}{listed}")
