"""A real SLURM of two nodes on this machine, in a folder and with a munge of its own, while it is wanted.

`python -m tests.slurm.cluster FOLDER` starts it, says `ready`, and does as standard input says: `kill NODE`
kills a node's daemon and all its jobs at once, `start NODE` starts it again. When standard input ends, so
does everything. It wants root, and Debian's slurm-wlm and munge.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

ROOT = Path(__file__).parents[2]

NODES = ("n1", "n2")
PARTITIONS = ("short", "long")

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

_SETTINGS = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=10
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
SlurmctldTimeout=30
SlurmdTimeout=10
KillWait=5
WaitTime=0
InactiveLimit=0
MinJobAge=600
ReturnToService=2
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=1000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=short Nodes=ALL Default=YES MaxTime=60 State=UP
PartitionName=long Nodes=ALL MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why there can be no cluster here; None if there can."""
    lacking = [name for name in _PROGRAMS if _program(name) is None]
    if lacking:
        return f"no {', '.join(lacking)} here: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "SLURM's daemons want root"


class Cluster:
    """A cluster in a process of its own, for a `with`; jobs are submitted with `environment`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.slurm.cluster", str(self.folder)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._heard("ready")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def kill(self, node: str) -> None:
        """The node is gone, with whatever ran there."""
        self._tell(f"kill {node}")

    def start(self, node: str) -> None:
        self._tell(f"start {node}")

    def _tell(self, words: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()
        self._heard(words)

    def _heard(self, words: str) -> None:
        assert self._process.stdout
        said = self._process.stdout.readline().strip()
        if said != words:
            logs = "".join(path.read_text()[-2000:] for path in self.folder.rglob("*.log"))
            raise RuntimeError(f"the cluster said {said!r}, not {words!r}:\n{logs}")


class Daemons:
    """The daemons themselves; all that they start are descendants of this process, whatever they do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        _adopt_orphans()

    def start(self) -> None:
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        for name in ("state", "munge", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir()
        settings = _SETTINGS.format(host=socket.gethostname(), ports=_free_ports(3), folder=folder)
        (folder / "slurm.conf").write_text(settings)
        munge = folder / "munge"
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        for path in (munge, munge / "key"):
            shutil.chown(path, "munge", "munge")
        places = {
            "socket": "socket",
            "key-file": "key",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        told = [f"--{option}={munge / name}" for option, name in places.items()]
        self._run("munged", "--foreground", *told, user="munge")
        _wait_for((munge / "socket").is_socket, "munged")
        self._run("slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        _wait_for(self._idle, "the nodes")

    def start_node(self, node: str) -> None:
        self._nodes[node] = self._run("slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        self._nodes[node].kill()
        self._nodes.pop(node).wait()
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if process.environ().get("SLURMD_NODENAME") == node:
                    above = process.parent()
                    if above and above.name().startswith("slurmstepd"):
                        above.kill()  # the daemon beside a job
                    process.kill()

    def stop(self) -> None:
        """End all of it, and see that it has ended."""
        while left := psutil.Process().children(recursive=True):
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=5)

    def _idle(self) -> bool:
        said = self._ask("sinfo", "--noheader", "--Node", "--partition=long", "--format=%t")
        return said.split() == ["idle"] * len(NODES)

    def _ask(self, *command: str) -> str:
        return subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, check=False
        ).stdout

    def _run(self, name: str, *arguments: str, user: str | None = None) -> subprocess.Popen[bytes]:
        program = _program(name)
        assert program
        with (self.folder / f"{name}.out").open("ab") as out:
            return subprocess.Popen(
                [program, *arguments],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _adopt_orphans() -> None:
    """Make this process the parent of what its descendants leave (PR_SET_CHILD_SUBREAPER)."""
    if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come up in {seconds:.0f} s")
        time.sleep(0.1)


def main(folder: Path) -> None:
    daemons = Daemons(folder)
    try:
        daemons.start()
        print("ready", flush=True)
        for line in sys.stdin:
            verb, node = line.split()
            {"kill": daemons.kill_node, "start": daemons.start_node}[verb](node)
            print(line.strip(), flush=True)
    finally:
        daemons.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
