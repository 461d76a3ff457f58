"""Whatever is wrong with a plan: one line that names the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import DatacreateError, PlanError, UsageError
from datacreate.sweep import Sweep, load_plan
from tests.sweep.conftest import Bench

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"benchmark": ["creak"]}, "benchmark: there is no such key (did you mean benchmarks?)"),
    "an option of create": ({"max_num_seqs": 3}, "max_num_seqs: there is no such key (an option of `create`"),
    "unknown benchmark": (
        {"benchmarks": ["kreak"]},
        "benchmarks.0: unknown benchmark 'kreak' (did you mean creak?)",
    ),
    "no list": ({"benchmarks": "creak"}, "benchmarks: "),
    "no benchmark": ({"benchmarks": []}, "benchmarks: "),
    "twice": ({"benchmarks": ["creak", "csqa", "creak"]}, "benchmarks: creak is there twice"),
    "unknown arm": ({"conditions": ["tre"]}, "conditions.0: no condition 'tre' (did you mean tree?)"),
    "unknown generator": (
        {"generators": ["qwen2.5-coder-0.6b-instruct"]},
        "generators: unknown model 'qwen2.5-coder-0.6b-instruct' (did you mean qwen2.5-coder-0.5b-instruct",
    ),
    "an encoder writes": (
        {"generators": ["all-minilm-l6-v2"]},
        "generators: all-minilm-l6-v2 is of kind encoder, and instruct is needed here",
    ),
    "same name": (
        {"generators": ["./models/writer", "./others/writer"]},
        "have the same last name; rename one of the folders",
    ),
    "no generator": ({"generators": []}, "generators: the arm random needs a model"),
    "no encoder": ({"conditions": ["human"]}, "encoders: the arm human is for training"),
    "count": ({"count": "all"}, "count: 'all' is neither a number of rows above 0 nor the word train"),
    "count yes": ({"count": True}, "count: True is neither"),
    "size": ({"sizes": [50]}, "sizes: 50 is more than the count of 10"),
    "seed": ({"train_seeds": [1, -1]}, "train_seeds.1: Input should be greater than or equal to 0, not -1"),
    "seed twice": ({"example_seeds": [1, 1]}, "example_seeds: 1 is there twice"),
    "settings": ({"settings": "papr"}, "settings: Input should be 'datacreate' or 'paper', not 'papr'"),
    "create option": ({"create": {"methd": "paper"}}, "create: no option 'methd' (did you mean method?)"),
    "create value": ({"create": {"method": "papr"}}, "create: method='papr': Input should be"),
    "create options in vain": ({"create": {"servers": 2}}, "create: --servers: that is for running servers"),
    "create options that contradict": (
        {"create": {"verify": "off", "threshold": 0.9}},
        "create: --threshold: with --verify off nothing is verified",
    ),
    "the grid's own": ({"create": {"seed": 3}}, "create: seed is the plan's own to say"),
    "train option": ({"train": {"epoch": 3}}, "train.epoch: there is no such key (did you mean epochs?)"),
    "test": ({"test": ["csqa"]}, "test: none of these can be answered by a model for creak"),
    "name": ({"name": "../x"}, "name: "),
    "two things": ({"kount": 3, "settings": 4}, "(and 1 more)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_plan_is_one_line(name: str, bench: Bench) -> None:
    changes, words = BAD[name]
    bench.write(**changes)
    with pytest.raises(PlanError) as caught:
        load_plan(str(bench.plan))
    assert str(caught.value).startswith(f"plan {bench.plan}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arms: [tree\n", "not YAML"),
        ("- tree\n", "not a mapping"),
        ("", "not a mapping"),
        ("arms: [tree]\n", "benchmarks: this key is needed"),
        ("arms: [tree]\narms: [random]\n", "key arms is there twice"),
        ("train: {epochs: 1, epochs: 2}\n", "key epochs is there twice"),
        ("\x00", "not YAML"),
        ("[" * 5000, "not YAML"),
    ],
)
def test_a_file_that_is_no_plan_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(PlanError, match=words) as caught:
        load_plan(str(path))
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="cannot be read as text"):
        load_plan(str(tmp_path / "p.yaml"))


def test_a_misspelt_shipped_plan_suggests() -> None:
    with pytest.raises(PlanError, match=r"papr: no such file, and no shipped plan \(did you mean paper\?\)"):
        load_plan("papr")


def test_an_index_out_of_range_says_what_there_is(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"plan plan has the cells 0 to 0, and no 3; "):
        bench.sweep().run(3)
    assert not bench.out.exists()


def test_a_folder_of_another_plan_is_refused(bench: Bench) -> None:
    assert bench.run()
    with pytest.raises(PlanError, match="holds the sweep of the plan plan, not other; choose another --out"):
        bench.run(name="other")
    with pytest.raises(PlanError, match="holds the sweep of the plan plan"):
        bench.sweep(name="other").standing()


def test_a_folder_that_cannot_be_made_is_one_line(bench: Bench) -> None:
    sweep = Sweep(load_plan(str(bench.write())), bench.plan / "below")
    with pytest.raises(DatacreateError, match=r"plan\.yaml"):
        sweep.run()
