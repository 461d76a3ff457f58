"""`datacreate cluster` as a user, and the scripts, meet it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.inprocess import run
from tests.process import Ended


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Site settings, beside a stand-in for sinfo that knows two partitions."""
    sinfo = tmp_path / "bin" / "sinfo"
    sinfo.parent.mkdir()
    sinfo.write_text("#!/bin/sh\nprintf 'cpu\\ngpu\\n'\n")
    sinfo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sinfo.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DATACREATE_SITE", str(tmp_path / "site.yaml"))
    (tmp_path / "site.yaml").write_text("partition: gpu\ngpus: 1\nreport:\n  partition: cpu\n  gpus: 0\n")
    return tmp_path / "site.yaml"


def told(ended: Ended) -> str:
    assert ended.code == 2
    assert ended.out == ""
    return ended.failure


def test_the_template_can_be_filled_in(site: Path) -> None:
    site.write_text(run("cluster", "template").out)
    assert run("cluster", "show").code == 0


def test_show_says_what_each_job_asks_for() -> None:
    ended = run("cluster", "show")
    assert ended.code == 0
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines()[1:])
    assert lines["train"] == "--partition=gpu --gres=gpu:1 --signal=B:TERM@120 --export=ALL"
    assert lines["report"] == "--partition=cpu --signal=B:TERM@120 --export=ALL"
    assert json.loads(run("cluster", "show", "--json").out)["report"]["gpus"] == "0"


def test_an_unknown_partition_is_named_with_those_there_are(site: Path) -> None:
    site.write_text("partition: cpu\nserve:\n  partition: gpus\n")
    assert run("cluster", "options", "create").code == 0
    for words in (("show",), ("options", "serve")):
        assert "SLURM has no partition gpus; did you mean gpu? There are cpu, gpu" in told(
            run("cluster", *words)
        )


def test_without_an_answer_of_slurm_partitions_are_left_to_it(site: Path, tmp_path: Path) -> None:
    site.write_text("partition: anything\n")
    (tmp_path / "bin" / "sinfo").write_text("#!/bin/sh\nexit 1\n")
    assert run("cluster", "show").code == 0


def test_a_wrong_job_or_argument_is_wrong_usage() -> None:
    assert "no job 'crate'; jobs are create, train" in told(run("cluster", "options", "crate"))
    assert "datacreate train --help" in told(run("cluster", "options", "train", "--", "rows", "--otu", "x"))
    assert run("cluster", "options", "train", "--", "rows", "--out", "x").code == 0
