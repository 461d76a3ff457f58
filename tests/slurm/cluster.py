"""A real SLURM cluster of two nodes on this machine, with its own folder and munge daemon.

`python -m tests.slurm.cluster FOLDER` starts it and prints `ready`. Then it reads commands from standard input:
`kill NODE` kills a node's daemon with all its jobs, `start NODE` starts it again. At the end of standard input it
stops everything. It needs root, and Debian's slurm-wlm and munge.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from tests.support.servers import until

ROOT = Path(__file__).parents[2]
NODES = ("n1", "n2")

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

_SETTINGS = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
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
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=1000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started; None if one can."""
    programs = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if programs:
        return f"no {', '.join(programs)}: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "the SLURM daemons need root"


class Cluster:
    """A running cluster, in a process of its own; jobs are submitted with `environment`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.slurm.cluster", str(self.folder)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        self._expect("ready")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def send(self, command: str) -> None:
        """`kill NODE` or `start NODE`."""
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        self._expect(command)

    def _expect(self, text: str) -> None:
        assert self._process.stdout
        answer = self._process.stdout.readline().strip()
        if answer != text:
            logs = "".join(path.read_text()[-2000:] for path in self.folder.rglob("*.log"))
            raise RuntimeError(f"the cluster answered {answer!r}, not {text!r}:\n{logs}")


class Daemons:
    """The daemons; everything that they start is a descendant of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0) != 0:  # PR_SET_CHILD_SUBREAPER
            raise OSError(ctypes.get_errno(), "prctl")

    def start(self) -> None:
        folder, munge = self.folder, self.folder / "munge"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        for name in ("state", "munge", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir()
        settings = _SETTINGS.format(host=socket.gethostname(), ports=_free_ports(3), folder=folder)
        (folder / "slurm.conf").write_text(settings)
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        for path in (munge, munge / "key"):
            shutil.chown(path, "munge", "munge")
        options = [f"--socket={munge / 'socket'}"]
        options += [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        self._run("munged", "--foreground", *options, user="munge")
        until((munge / "socket").is_socket, 60)
        self._run("slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        until(self._idle, 60)

    def start_node(self, node: str) -> None:
        self._nodes[node] = self._run("slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        self._nodes[node].kill()
        self._nodes.pop(node).wait()
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if process.environ().get("SLURMD_NODENAME") == node:
                    parent = process.parent()
                    if parent and parent.name().startswith("slurmstepd"):
                        parent.kill()
                    process.kill()

    def stop(self) -> None:
        while processes := psutil.Process().children(recursive=True):
            for process in processes:
                process.kill()
            psutil.wait_procs(processes, timeout=5)

    def _idle(self) -> bool:
        command = ["sinfo", "--noheader", "--Node", "--format=%t"]
        answer = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        return answer.stdout.split() == ["idle"] * len(NODES)

    def _run(self, name: str, *arguments: str, user: str | None = None) -> subprocess.Popen[bytes]:
        program = shutil.which(name, path=_PATH)
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


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


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
