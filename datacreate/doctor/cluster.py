"""SLURM: is it here, are we in a job of it, and would the site settings do?"""

from __future__ import annotations

import os
import shlex
import shutil

from datacreate.cluster import JOBS, check_partitions, load_site, site_path
from datacreate.doctor.line import Line
from datacreate.errors import SiteError

SECTION = "cluster"


def cluster() -> list[Line]:
    """A line on SLURM, and where it is one on the site settings."""
    slurm = _slurm()
    return [slurm, *([_site()] if shutil.which("sbatch") or site_path().exists() else [])]


def _site() -> Line:
    name, path = "site settings", shlex.quote(str(site_path()))
    if not site_path().exists():
        said = f"none at {path}: the scripts for SLURM want them"
        return Line(SECTION, name, "note", said, f"datacreate cluster template >{path}")
    try:
        site = load_site()
        for settings in dict.fromkeys(site.job(job) for job in JOBS):
            check_partitions(settings, site_path())
    except SiteError as error:
        return Line(SECTION, name, "red", str(error), f"{os.environ.get('EDITOR', 'vi')} {path}")
    return Line(SECTION, name, "ok", path)


def _slurm() -> Line:
    found = [name for name in ("sbatch", "srun") if shutil.which(name)]
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        parts = {
            "job": job,
            "task": os.environ.get("SLURM_ARRAY_TASK_ID"),
            "partition": os.environ.get("SLURM_JOB_PARTITION"),
            "node": os.environ.get("SLURM_JOB_NODELIST"),
        }
        said = "in " + ", ".join(f"{name} {value}" for name, value in parts.items() if value)
        return Line(SECTION, "SLURM", "ok", said)
    if not found:
        return Line(SECTION, "SLURM", "note", "no sbatch or srun here")
    return Line(SECTION, "SLURM", "ok", f"{' and '.join(found)} here; not in a job")
