"""From settings to what sbatch is given, and what the job's script finds in its environment."""

from __future__ import annotations

import shlex

from datacreate.cluster.settings import JobSettings, Site


def sbatch_options(settings: JobSettings) -> list[str]:
    """The options of sbatch that ask for this."""
    asked = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "gres": f"gpu:{settings.gpus}" if settings.gpus.rpartition(":")[2].strip("0") else None,
        "cpus-per-task": settings.cpus,
        "mem": settings.memory,
        "time": settings.time,
        "signal": f"B:TERM@{settings.signal_seconds}",
        "export": "ALL",
    }
    return [*(f"--{name}={value}" for name, value in asked.items() if value is not None), *settings.options]


def shell_settings(site: Site, settings: JobSettings) -> str:
    """The same as assignments for scripts/slurm/job.sh, to be evaluated by a shell.

    What the job itself needs is exported: SLURM keeps it with the job, so that a job that comes back
    runs as it was submitted, whatever has become of the file.
    """
    return "\n".join(
        [
            f"options=({shlex.join(sbatch_options(settings))})",
            f"logs={shlex.quote(site.logs)}",
            f"max_array={settings.max_array or ''}",
            f"export DATACREATE_SETUP={shlex.quote(settings.setup or '')}",
            f"export DATACREATE_CONTAINER={shlex.quote(settings.container or '')}",
            f"export DATACREATE_RESTARTS={settings.restarts}",
        ]
    )
