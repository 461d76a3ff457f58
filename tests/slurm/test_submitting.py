"""What is wrong is told in one line, before anything waits in a queue."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.process import ROOT
from tests.slurm.conftest import User

SCRIPTS = sorted(
    path.name for pattern in ("*.sbatch", "pipeline.sh") for path in (ROOT / "scripts").glob(pattern)
)


@pytest.fixture
def plan(user: User) -> str:
    told = {"benchmarks": ["csqa"], "conditions": ["random", "tree"], "generators": [user.model], "count": 10}
    (user.folder / "plan.yaml").write_text(yaml.safe_dump(told))
    return "plan.yaml"


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_says_how_it_is_used(script: str, user: User) -> None:
    ended = user.types(f"scripts/{script}", "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"scripts/{script}" in ended.out
    assert "SBATCH" not in ended.out
    alone = user.types(f"scripts/{script}")
    assert (alone.code, alone.out) in [(2, ""), (0, ended.out)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partition": "shrot"}, "SLURM has no partition shrot; did you mean short? There are short, long"),
        ({"partition": "short,gpu"}, "SLURM has no partition gpu; there are short, long"),
        ({"partiton": "short"}, "partiton: there is no such key; did you mean partition?"),
        ({"time": "1:00"}, "signal_seconds: 120 s before the end of 1:00 is before the start"),
    ],
)
def test_wrong_site_settings_are_told_in_one_line(changes: dict[str, Any], words: str, user: User) -> None:
    user.site(**changes)
    ended = user.types("scripts/create.sbatch", *user.creation("run"))
    assert (ended.code, ended.out) == (2, "")
    [line] = ended.lines
    assert f"site settings {user.folder}/site.yaml: " in line
    assert words in line


def test_a_wrong_option_of_the_verb_is_told_at_once(user: User) -> None:
    ended = user.types("scripts/create.sbatch", *user.creation("run"), "--cuont", 3)
    assert ended.code == 2
    assert "--cuont" in ended.failure
    ended = user.types(
        "scripts/pipeline.sh", "--out", "all", "--train", "--epoch", *user.creation("run")[:-2]
    )
    assert ended.code == 2
    assert "datacreate train --help" in ended.failure
    assert user.types("squeue", "--noheader", "--user=root", "--states=PENDING").out == ""


def test_what_slurm_refuses_is_told_in_one_line(user: User) -> None:
    user.site(options=["--constraint=fast"])
    ended = user.types("scripts/create.sbatch", *user.creation("run"))
    assert ended.code == 1
    [line] = ended.lines
    assert line.startswith("create.sbatch: SLURM does not take the job: ")
    assert "Invalid feature specification" in line


def test_an_index_out_of_the_plan_is_told_before_it_is_submitted_and_in_the_job(
    user: User, plan: str
) -> None:
    ended = user.types("scripts/sweep.sbatch", plan, "--out", "swept", "--index", 7)
    assert ended.code == 2
    assert "has the cells 0 to 1, and no 7" in ended.failure
    said = user.types(
        "sbatch", "--parsable", "--array=7", "--output=seven.log", ROOT / "scripts/sweep.sbatch", plan
    )
    assert user.waits_for(said.out.strip()) == ["FAILED"]
    log = (user.folder / "seven.log").read_text()
    assert "has the cells 0 to 1, and no 7" in log
    assert "Traceback" not in log


def test_one_cell_alone_can_be_submitted(user: User, plan: str) -> None:
    jobs = user.submits("scripts/sweep.sbatch", plan, "--out", "swept", "--index", 1)
    assert user.waits_for(*jobs) == ["COMPLETED"]
    assert [run.name for run in (user.folder / "swept" / "runs").iterdir()] == ["csqa-scripted-model-tree-42"]


def test_setup_lines_and_a_container_are_of_the_job(user: User) -> None:
    user.site(setup="export GREETED='it is'\nfalse", container="env FROM='a b'", create={"cpus": 2})
    [job] = user.submits("scripts/create.sbatch", "--sbatch=--comment=mine", *user.creation("run", 10))
    assert user.waits_for(job) == ["COMPLETED"]
    [told] = user.job(job)
    assert (told["NumCPUs"], told["Comment"]) == ("2", "mine")
    assert len(user.rows("run")) == 10


def test_servers_on_one_node_publish_ports_of_their_own_and_come_back(user: User) -> None:
    user.site(serve={"options": ["--nodelist=n1"]})
    [job] = user.submits("scripts/serve.sbatch", "--servers", 2, "--run-dir", "run", "--model", "small")
    published = user.folder / "run" / "servers"
    user.waits(lambda: len(list(published.glob("*.json"))) == 2)
    told = [json.loads(path.read_text()) for path in published.glob("*.json")]
    assert len({one["url"] for one in told}) == 2
    [first, second] = [f"{job}_0", f"{job}_1"]
    user.types("scancel", "--batch", "--signal=TERM", second)
    user.waits(
        lambda: user.job(second)[0]["Restarts"] == "1" and user.job(second)[0]["JobState"] == "RUNNING"
    )
    assert user.job(first)[0]["Restarts"] == "0"
    user.waits(lambda: len(list(published.glob("*.json"))) == 2)
    asking = ("--example", "mine.json", "--count", 40, "--run-dir", "run", "--url", "run/servers")
    [create] = user.submits("scripts/create.sbatch", *asking, "--servers", 2)
    assert user.waits_for(create) == ["COMPLETED"]
    assert len(user.rows("run")) == 40
    user.types("scancel", job)
    assert set(user.waits_for(job)) == {"CANCELLED"}
    assert list(published.glob("*.json")) == []
