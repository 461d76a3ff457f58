"""Who holds a lock, and whether that process can be known to be alive or gone from here."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError


class Holder(BaseModel):
    """A process, named so that no other, before or after it, on this or another machine, is taken for it."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a later version may say more of itself

    process: int
    host: str
    machine: str  # the boot, and the container, in which `process` is this process and no other
    started: str  # when the process did, in ticks since the boot; empty where that is not to be had
    job: str | None  # of SLURM
    since: datetime  # by the holder's own clock: to be shown, never reckoned with
    token: str

    @classmethod
    def this_process(cls) -> Self:
        """This process, from now on."""
        return cls(
            process=os.getpid(),
            host=socket.gethostname(),
            machine=_machine(),
            started=(_started_and_state(os.getpid()) or ("", ""))[0],
            job=slurm_job(),
            since=datetime.now(UTC).replace(microsecond=0),
            token=secrets.token_hex(8),
        )

    @classmethod
    def parse(cls, record: bytes) -> Self | None:
        """What `record` was made from; None if it is cut off or somebody else's."""
        try:
            return cls.model_validate_json(record)
        except ValidationError:
            return None

    @property
    def record(self) -> bytes:
        """One line, without its end."""
        return self.model_dump_json().encode("utf-8")

    @property
    def is_here(self) -> bool:
        """Whether `is_alive` can tell."""
        return (self.host, self.machine) == (socket.gethostname(), _machine())

    @property
    def is_alive(self) -> bool:
        """Whether the process is still there; of one on this machine only. In doubt it is."""
        if not psutil.pid_exists(self.process):
            return False
        now = _started_and_state(self.process)
        if not now or not self.started:
            return True
        return now[0] == self.started and now[1] not in "ZX"  # else its number is another's, or it is dead

    def __str__(self) -> str:
        job = f" (SLURM job {self.job})" if self.job else ""
        return f"process {self.process} on {self.host}{job}, since {self.since:%Y-%m-%d %H:%M} UTC"


def _machine() -> str:
    """This boot of this machine and its process numbers, which every container has of its own.

    Empty where the system does not tell: then the name of the host has to do.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started_and_state(process: int) -> tuple[str, str] | None:
    """The fields 22 and 3 of proc_pid_stat(5): unlike a time of day, ticks since the boot never shift."""
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rfind(b")") + 2 :].decode("ascii").split()  # a name may hold anything
    return fields[19], fields[0]


def slurm_job() -> str | None:
    """The SLURM job that this process is of, a task of an array as SLURM names it: 4711_3."""
    task = [os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK")]
    if all(task):
        return "_".join(map(str, task))
    return os.environ.get("SLURM_JOB_ID")
