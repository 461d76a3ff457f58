"""One real SLURM for all tests here, and a user's folder to submit the real scripts from."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.finetuning.conftest import import_rows, save_encoder
from tests.finetuning.sets import choices
from tests.making import COMMONSENSE
from tests.process import Ended
from tests.slurm.cluster import ROOT, Cluster, why_not

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}

SITE: dict[str, Any] = {"partition": "short", "gpus": 0, "time": "10:00", "restarts": 10}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if why := why_not():
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # not pytest's, which munge may not enter
    try:
        with Cluster(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def slurm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a CommonsenseQA of 60 rows to train on and 20 to test on."""
    folder = tmp_path_factory.mktemp("slurm-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACREATE_HOME", str(folder / "home"))
        import_rows(folder / "reference", "csqa", train=choices(60, 5, 1), test=choices(20, 5, 2))
    return folder / "home"


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("small") / "encoder")


@dataclass
class User:
    """Someone at a login node, in a folder of their own; `datacreate` is on their PATH."""

    folder: Path
    environment: dict[str, str]
    model: str

    def site(self, **changes: Any) -> None:
        """Write the site settings: small CPU jobs, unless told otherwise."""
        Path(self.environment["DATACREATE_SITE"]).write_text(yaml.safe_dump({**SITE, **changes}))

    def types(self, script: str, *arguments: object, **environment: str) -> Ended:
        """A command, to its end: one of the scripts, or one of SLURM's."""
        program = str(ROOT / script) if script.startswith("scripts/") else script
        ended = subprocess.run(
            [program, *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def submits(self, script: str, *arguments: object, **environment: str) -> list[str]:
        """A script that must succeed; the jobs that it says it has submitted."""
        ended = self.types(script, *arguments, **environment)
        assert ended.code == 0, ended.err
        return re.findall(r"^submitted .* as job (\d+)", ended.out, re.MULTILINE)

    @property
    def usual(self) -> list[object]:
        """What two runs must have in common to be the same, bytes and all."""
        return ["--model", self.model, "--concurrency", 4]

    def creation(self, run: str, count: int = 60) -> list[object]:
        """The options of a `create` in one's own folder."""
        return ["--example", "mine.json", *self.usual, "--count", count, "--run-dir", run]

    def job(self, job: str) -> list[dict[str, str]]:
        """What SLURM says of a job, or of each task of an array."""
        said = self.types("scontrol", "--oneliner", "show", "job", job).out
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in said.splitlines() if line]

    def waits(self, condition: Callable[[], bool], seconds: float = 150) -> None:
        """Wait until it holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("\n".join(path.read_text() for path in self.logs()))
            time.sleep(0.5)  # scontrol costs something, too

    def waits_for(self, *jobs: str) -> list[str]:
        """Wait until they have ended; the state of each, or of each task."""

        def states() -> list[str]:
            return [one["JobState"] for job in jobs for one in self.job(job)]

        self.waits(lambda: set(states()) <= ENDED)
        return states()

    def logs(self) -> list[Path]:
        return sorted(self.folder.glob("slurm-logs/*.log"))

    def log(self, job: str) -> str:
        return "".join(path.read_text() for path in self.folder.glob(f"slurm-logs/*-{job}.log"))

    def rows(self, run: str) -> list[str]:
        """The examples of a finished run."""
        return (self.folder / run / "train.jsonl").read_text().splitlines()

    def has_rows(self, run: str) -> bool:
        """Whether a run has begun to write."""
        log = self.folder / run / "log.jsonl"
        return log.exists() and log.read_bytes().count(b"\n") > 2

    def whole(self, *options: object) -> None:
        """`datacreate create`, here and now, without a stop."""
        ended = self.types("datacreate", "create", *options)
        assert ended.code == 0, ended.err


@pytest.fixture(scope="session")
def new_user(
    cluster: Cluster, slurm_home: Path, model: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], User]:
    def make() -> User:
        folder = tmp_path_factory.mktemp("user")
        wrapper = folder / "bin" / "datacreate"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.slurm.command "$@"\n')
        wrapper.chmod(0o755)
        (folder / "mine.json").write_text(json.dumps(COMMONSENSE))
        environment = {
            **os.environ,
            **cluster.environment,
            "PATH": f"{wrapper.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "DATACREATE_HOME": str(slurm_home),
            "DATACREATE_SITE": str(folder / "site.yaml"),
            "OMP_NUM_THREADS": "1",
        }
        user = User(folder, environment, model)
        user.site()
        return user

    return make


@pytest.fixture
def user(new_user: Callable[[], User]) -> User:
    return new_user()
