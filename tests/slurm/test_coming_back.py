"""Jobs that are stopped come back by themselves and finish exactly what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import User

MINUTE = {"time": "1:00", "signal_seconds": 35}  # SLURM knows no shorter limit


@dataclass
class Limited:
    """A pipeline and a sweep, whose first starts are too long for their time limit, submitted at once."""

    user: User
    pipeline: list[str]
    sweep: str


@pytest.fixture(scope="module")
def limited(new_user: Callable[[], User], small_encoder: Path) -> Limited:
    user = new_user()
    user.site(create=MINUTE, sweep=MINUTE, max_array=2)
    train = [
        "--train",
        f"--encoder={small_encoder}",
        "--train",
        "--seeds=1",
        "--train",
        "--epochs=1",
        "--evaluate",
        "--benchmark=csqa",
    ]
    created = ["--benchmark", "csqa", "--count", 60, *user.usual]
    jobs = user.submits("scripts/pipeline.sh", "--out", "all", *train, *created, STALLS="5")
    plan = {
        "benchmarks": ["csqa"],
        "conditions": ["random", "tree", "naive"],
        "generators": [user.model],
        "count": 30,
    }
    (user.folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    [sweep] = user.submits("scripts/sweep.sbatch", "plan.yaml", "--out", "swept", STALLS="4")
    return Limited(user, jobs, sweep)


@pytest.mark.slow
def test_a_time_limit_does_not_end_a_creation_and_what_waits_for_it_waits(limited: Limited) -> None:
    user = limited.user
    create, *behind = limited.pipeline
    user.waits(lambda: user.job(create)[0]["Restarts"] != "0")
    assert [user.job(job)[0]["JobState"] for job in behind] == ["PENDING"] * 3
    assert user.waits_for(*limited.pipeline) == ["COMPLETED"] * 4
    assert len(user.rows("all/run")) == 60
    user.whole("--benchmark", "csqa", "--count", 60, *user.usual, "--run-dir", "whole")
    assert user.rows("all/run") == user.rows("whole")
    said = user.log(create)
    assert "stopped, and comes back" in said
    assert "resuming from" in said
    assert (user.folder / "all" / "report" / "report.html").is_file()


@pytest.mark.slow
def test_every_cell_of_an_array_comes_back_on_its_own(limited: Limited) -> None:
    user = limited.user
    assert user.waits_for(limited.sweep) == ["COMPLETED"] * 3
    assert all(task["Restarts"] != "0" for task in user.job(limited.sweep))
    assert {task["ArrayTaskThrottle"] for task in user.job(limited.sweep)} == {"2"}
    runs = sorted((user.folder / "swept" / "runs").iterdir())
    assert [len(user.rows(f"swept/runs/{run.name}")) for run in runs] == [30] * 3
    again = user.types("scripts/sweep.sbatch", "plan.yaml", "--out", "swept")
    assert (again.code, again.out) == (0, "nothing to submit: no cell is left to do\n")


@pytest.mark.slow
def test_a_node_that_dies_under_a_job_costs_nothing(cluster: Cluster, user: User) -> None:
    [job] = user.submits("scripts/create.sbatch", *user.creation("run"), STALLS="5")
    user.waits(lambda: user.has_rows("run"))
    node = user.job(job)[0]["NodeList"]
    cluster.kill(node)
    try:
        assert user.waits_for(job) == ["COMPLETED"]
        [ended] = user.job(job)
        assert (ended["Restarts"], ended["NodeList"] != node) == ("1", True)
        user.whole(*user.creation("whole"))
        assert user.rows("run") == user.rows("whole")
    finally:
        cluster.start(node)


def test_a_cancelled_job_stays_away(user: User) -> None:
    [job] = user.submits("scripts/create.sbatch", *user.creation("run"), STALLS="3")
    user.waits(lambda: user.has_rows("run"))
    assert user.types("scancel", job).code == 0
    assert user.waits_for(job) == ["CANCELLED"]
    assert "ended by SLURM" in user.log(job)


def test_a_signal_to_every_process_of_a_job_is_as_good_as_one_to_its_script(user: User) -> None:
    [job] = user.submits("scripts/create.sbatch", *user.creation("run"), STALLS="3")
    user.waits(lambda: user.has_rows("run"))
    assert user.types("scancel", "--full", "--signal=TERM", job).code == 0
    assert user.waits_for(job) == ["COMPLETED"]
    assert len(user.rows("run")) == 60


def test_a_job_that_always_stops_gives_up_at_last(user: User) -> None:
    user.site(restarts=0)
    [job] = user.submits("scripts/create.sbatch", *user.creation("run"), STALLS="3")
    user.waits(lambda: user.has_rows("run"))
    assert user.types("scancel", "--batch", "--signal=TERM", job).code == 0
    assert user.waits_for(job) == ["FAILED"]
    assert user.job(job)[0]["ExitCode"] == "75:0"
    assert "came back 0 times and is not done: given up" in user.log(job)


def test_a_failure_is_final_and_takes_what_waits_for_it_away(user: User, small_encoder: Path) -> None:
    user.types("datacreate", "create", *user.creation("all/run", count=5))
    # Another seed in the same folder is refused.
    jobs = user.submits(
        "scripts/pipeline.sh",
        "--out",
        "all",
        "--train",
        f"--encoder={small_encoder}",
        *user.creation("x"),
        "--seed=7",
    )
    assert user.waits_for(*jobs) == ["FAILED", "CANCELLED", "CANCELLED", "CANCELLED"]
    assert "all/run was made with another seed" in user.log(jobs[0])
