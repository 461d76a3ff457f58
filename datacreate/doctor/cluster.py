"""SLURM: is it here, and are we in a job of it?"""

from __future__ import annotations

import os
import shutil

from datacreate.doctor.line import Line

SECTION = "cluster"


def cluster() -> list[Line]:
    """One line."""
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
        return [Line(SECTION, "SLURM", "ok", said)]
    if not found:
        return [Line(SECTION, "SLURM", "note", "no sbatch or srun here")]
    return [Line(SECTION, "SLURM", "ok", f"{' and '.join(found)} here; not in a job")]
