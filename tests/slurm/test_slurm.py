"""scripts/datacreate.sbatch on a real SLURM cluster of two nodes: jobs that are stopped resume, others end."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.finetuning.conftest import import_rows
from tests.finetuning.sets import choices
from tests.slurm.cluster import ROOT, Cluster, missing
from tests.support.making import COMMONSENSE

pytestmark = pytest.mark.slow

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
SCRIPT = ROOT / "scripts" / "datacreate.sbatch"


class User:
    """A user at a login node, with `datacreate` on the PATH and several jobs."""

    def __init__(self, cluster: Cluster, folder: Path, model: str) -> None:
        self.cluster, self.folder, self.model = cluster, folder, model
        self.jobs: dict[str, str] = {}
        (folder / "bin").mkdir()
        wrapper = folder / "bin" / "datacreate"
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.slurm.command "$@"\n')
        wrapper.chmod(0o755)
        (folder / "mine.json").write_text(json.dumps(COMMONSENSE))
        self.environment = {
            **os.environ,
            **cluster.environment,
            "PATH": f"{wrapper.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "DATACREATE_HOME": str(folder / "home"),
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *command: object, **environment: str) -> str:
        """The standard output of a command, which must succeed."""
        return subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=True,
        ).stdout

    def submit(
        self, name: str, options: str, *arguments: object, stalls: int | None = None, **environment: str
    ) -> None:
        """Submit a job of that name; its engine stops answering in its first start after `stalls` answers."""
        if stalls:
            environment["STALLS"] = str(stalls)
        output = f"--output={name}.log"
        words = ["sbatch", "--parsable", "--time=10", output, *options.split(), SCRIPT, *arguments]
        self.jobs[name] = self.run(*words, **environment).strip()

    def create(self, run: str, *options: object) -> list[object]:
        common = ["--example", "mine.json", "--model", self.model, "--concurrency", 4, "--count", 60]
        return ["create", *common, "--run-dir", run, *options]

    def tasks(self, name: str) -> list[dict[str, str]]:
        """What SLURM says about a job, or about each task of an array."""
        lines = self.run("scontrol", "--oneliner", "show", "job", self.jobs[name]).splitlines()
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines if line]

    def wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 180
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("\n".join(path.read_text() for path in self.folder.glob("*.log")))
            time.sleep(0.5)

    def end_of(self, name: str) -> list[str]:
        """Wait for the end of a job; the state of each of its tasks."""
        self.wait(lambda: {task["JobState"] for task in self.tasks(name)} <= ENDED)
        return [task["JobState"] for task in self.tasks(name)]

    def wait_for_rows(self, *runs: str) -> None:
        logs = [self.folder / run / "log.jsonl" for run in runs]
        self.wait(lambda: all(log.exists() and log.read_bytes().count(b"\n") > 2 for log in logs))

    def rows(self, run: str) -> list[str]:
        return (self.folder / run / "train.jsonl").read_text().splitlines()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def user(model: str) -> Iterator[User]:
    """A user whose jobs are all submitted and stopped at once, since they wait most of the time."""
    if why := missing():
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # outside of pytest's folders, which munge may not enter
    folder.chmod(0o755)
    try:
        with Cluster(folder / "cluster") as cluster:
            (folder / "user").mkdir()
            user = User(cluster, folder / "user", model)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("DATACREATE_HOME", user.environment["DATACREATE_HOME"])
                import_rows(folder / "reference", "csqa", train=choices(60, 5, 1), test=choices(20, 5, 2))
            submit_all(user)
            stop_all(user)
            yield user
    finally:
        shutil.rmtree(folder)


def submit_all(user: User) -> None:
    # SLURM knows no shorter limit than a minute.
    user.submit("limited", "--time=1 --signal=B:TERM@40", *user.create("limited"), stalls=5)
    behind = f"--kill-on-invalid-dep=yes --dependency=afterok:{user.jobs['limited']}"
    user.submit("behind", behind, "show", "limited")
    user.submit("failed", "", "show", "nothing")
    behind = f"--kill-on-invalid-dep=yes --dependency=afterok:{user.jobs['failed']}"
    user.submit("behind-failed", behind, "show", "nothing")
    user.submit("cancelled", "", *user.create("cancelled"), stalls=3)
    user.submit("signalled", "", *user.create("signalled"), stalls=3)
    user.submit("limit", "", *user.create("limit"), stalls=3, DATACREATE_RESTARTS="0")
    plan = {"benchmarks": ["csqa"], "conditions": ["random", "tree"], "generators": [user.model], "count": 30}
    (user.folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    sweep = ("sweep", "plan.yaml", "--out", "swept", "--index", "auto")
    user.submit("sweep", "--array=0-1 --output=sweep-%a.log", *sweep, stalls=4)
    serve = ("serve", "--model", "small", "--host", "0.0.0.0", "--register-dir", "served/servers")
    user.submit("serve", "--array=0-1 --output=serve-%a.log", *serve)


SWEPT = [f"swept/runs/csqa-scripted-model-{strategy}-42" for strategy in ("random", "tree")]


def stop_all(user: User) -> None:
    user.wait_for_rows("cancelled", "signalled", "limit")
    user.run("scancel", user.jobs["cancelled"])
    user.run("scancel", "--full", "--signal=TERM", user.jobs["signalled"])
    user.run("scancel", "--batch", "--signal=TERM", user.jobs["limit"])
    user.wait_for_rows(*SWEPT)
    user.run("scancel", "--batch", "--signal=TERM", user.jobs["sweep"])
    user.wait(lambda: user.tasks("limited")[0]["Restarts"] != "0")
    user.run("scontrol", "update", f"JobId={user.jobs['limited']}", "TimeLimit=10")  # a slow start takes long


@pytest.fixture(scope="module")
def whole(user: User) -> list[str]:
    """The rows of a run that is never stopped."""
    user.run("datacreate", *user.create("whole"))
    return user.rows("whole")


def test_a_signal_to_all_processes_of_a_job_stops_it_and_it_resumes(user: User, whole: list[str]) -> None:
    assert user.end_of("signalled") == ["COMPLETED"]
    assert user.rows("signalled") == whole


def test_a_cancelled_job_does_not_start_again(user: User) -> None:
    assert user.end_of("cancelled") == ["CANCELLED"]
    assert "ended by SLURM" in user.log("cancelled")


def test_a_job_gives_up_after_its_restarts(user: User) -> None:
    assert user.end_of("limit") == ["FAILED"]
    assert user.tasks("limit")[0]["ExitCode"] == "75:0"
    assert "stopped again after 0 restarts; gives up" in user.log("limit")


def test_a_failed_job_is_final_and_cancels_those_that_depend_on_it(user: User) -> None:
    assert user.end_of("failed") == ["FAILED"]
    assert user.end_of("behind-failed") == ["CANCELLED"]
    assert "exit code 2" in user.log("failed")


def test_each_task_of_an_array_resumes(user: User) -> None:
    assert user.end_of("sweep") == ["COMPLETED"] * 2
    assert [task["Restarts"] for task in user.tasks("sweep")] == ["1", "1"]
    assert [len(user.rows(run)) for run in SWEPT] == [30, 30]


def test_servers_register_ports_of_their_own_and_start_again(user: User) -> None:
    folder = user.folder / "served" / "servers"
    user.wait(lambda: len(list(folder.glob("*.json"))) == 2)
    second = f"{user.jobs['serve']}_1"
    user.run("scancel", "--batch", "--signal=TERM", second)
    user.wait(lambda: [task["Restarts"] for task in user.tasks("serve")].count("1") == 1)
    user.wait(lambda: len(list(folder.glob("*.json"))) == 2)
    common = ("--example", "mine.json", "--count", 40, "--run-dir", "served")
    user.submit("served", "", "create", *common, "--url", "served/servers", "--servers", 2)
    assert user.end_of("served") == ["COMPLETED"]
    assert len(user.rows("served")) == 40
    user.run("scancel", user.jobs["serve"])
    assert user.end_of("serve") == ["CANCELLED"] * 2
    assert list(folder.glob("*.json")) == []


def test_a_time_limit_does_not_end_a_job_and_those_that_depend_on_it_wait(user: User, whole: list[str]) -> None:
    assert user.end_of("limited") == ["COMPLETED"]
    assert user.tasks("limited")[0]["Restarts"] != "0"
    assert "stopped; queued again" in user.log("limited")
    assert user.rows("limited") == whole
    assert user.end_of("behind") == ["COMPLETED"]
    assert "60" in user.log("behind")


def test_a_job_resumes_on_another_node_when_its_node_dies(user: User, whole: list[str]) -> None:
    user.submit("moved", "", *user.create("moved"), stalls=5)
    user.wait_for_rows("moved")
    node = user.tasks("moved")[0]["NodeList"]
    user.cluster.send(f"kill {node}")
    assert user.end_of("moved") == ["COMPLETED"]
    [task] = user.tasks("moved")
    assert (task["Restarts"], task["NodeList"] != node) == ("1", True)
    assert user.rows("moved") == whole
