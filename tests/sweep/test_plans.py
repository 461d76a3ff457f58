"""Plan files: what is wrong with one is reported in one line that names the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import DatacreateError, UsageError
from datacreate.sweep.cells import build_cells
from datacreate.sweep.plan import SweepPlan, load_plan
from datacreate.sweep.run import Sweep
from tests.support.process import ROOT
from tests.sweep.conftest import Bench

IMPROVED: dict[str, Any] = {
    "variants": {"mine": {"strategy": "tree", "improve": True}},
    "conditions": ["mine"],
    "encoders": ["./models/reader"],
    "count": 78,
}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"benchmark": ["creak"]}, "benchmark: no such key (did you mean benchmarks?)"),
    ({"benchmarks": ["kreak"]}, "benchmarks: unknown benchmark 'kreak' (did you mean creak?)"),
    ({"benchmarks": "creak"}, "benchmarks: give a list: [a, b]"),
    ({"benchmarks": []}, "benchmarks: Tuple should have at least 1 item"),
    ({"benchmarks": ["creak", "csqa", "creak"]}, "benchmarks: creak is listed twice"),
    ({"conditions": ["tre"]}, "conditions: no condition 'tre' (did you mean tree?)"),
    ({"generators": ["qwen2.5-coder-0.6b-instruct"]}, "generators: unknown model 'qwen2.5-coder-0.6b-instruct'"),
    ({"generators": ["./models/writer", "./others/writer"]}, "two checkpoints have the same folder name"),
    ({"generators": []}, "generators: the condition random needs a model"),
    ({"conditions": ["human"]}, "encoders: the condition human needs at least one to train"),
    ({"count": "all"}, "count: 'all' is neither a positive number of rows nor the word train"),
    ({"sizes": [50]}, "sizes: 50 is more than the count of 10"),
    ({"train_seeds": [1, -1]}, "train_seeds.1: give a number greater than or equal to 0"),
    ({"create": {"recpe": "paper"}}, "create: recpe: no such option, or the plan sets it (did you mean recipe?)"),
    ({"create": {"temperature": "hot"}}, "create: --temperature hot: give a valid number"),
    ({"create": {"temperature": True}}, "create: --temperature true: give a number"),
    ({"train": {"warmup": True}}, "train: --warmup true: give a number"),
    ({"create": {"corpus": "nowhere"}}, "nowhere: cannot be read (No such file or directory)"),
    ({"create": {"attributes": "nowhere.yaml"}}, "nowhere.yaml: no such file"),
    ({"create": {"attributes": "plan.yaml"}}, "plan.yaml: "),
    ({"create": {"adapter": "nowhere"}}, "nowhere: no such folder or file"),
    ({"create": {"instruction": "@nowhere"}}, "create: --instruction @nowhere: no such file"),
    ({"create": {"decontaminate": "nowhere.jsonl"}}, "create: --decontaminate nowhere.jsonl: no such file, and no"),
    ({"create": {"servers": 2}}, "create: --servers only applies to remote servers"),
    (
        {"create": {"urls": ["http://a:1"]}},
        "create: urls: no such option, or the plan sets it (did you mean url, turns?)",
    ),
    ({"create": {"seed": 3}}, "create: seed: no such option, or the plan sets it"),
    ({"create": {"adapter": True}}, "create: --adapter"),
    ({"create": {"attributes": ["a", "b"]}}, "create: --attributes"),
    ({"create": {"corpus": True}}, "create: --corpus true: give a list: [a, b]"),
    ({"create": {"corpus": [True]}}, "create: --corpus true: give a valid string"),
    ({"create": 3}, "create: give a mapping: {a: b}"),
    ({"train": {"epoch": 3}}, "train: epoch: no such option, or the plan sets it (did you mean epochs"),
    ({"train": {"epochs": 0}}, "train: --epochs 0: give a number greater than 0"),
    ({"train": {"validation": "nowhere.jsonl"}}, "nowhere.jsonl: no such file"),
    ({"train": {"validation": "."}}, "train: --validation "),
    ({"train": {"validation": ""}}, "train: --validation: the path is empty; give a file or a folder"),
    ({"create": {"adapter": ""}}, "create: --adapter: the path is empty; give a file or a folder"),
    ({"create": {"corpus": ["plan.yaml", ""]}}, "create: --corpus: the path is empty; give a file or a folder"),
    ({"train": {"validation": "plan.yaml", "model_selection": "none"}}, "train: --validation: --model-selection none"),
    ({"test": ["csqa"]}, "test: none of these fits the head of a model for creak"),
    ({"variants": {"mine": {"strategy": "tre"}}}, "variants.mine.strategy: no strategy 'tre' (did you mean tree?)"),
    ({"variants": {"tree": {"strategy": "tree"}}}, "variants: 'tree' is a strategy; choose another name"),
    ({"variants": {"zero-shot": {"strategy": "tree"}}}, "variants: 'zero-shot' is a condition; choose another name"),
    ({"variants": {"a b": {"strategy": "tree"}}}, "variants: 'a b': use letters, digits"),
    ({"variants": {"mine": "tree"}}, "variants.mine: give a mapping"),
    ({"variants": {"mine": {"strategi": "tree"}}}, "variants.mine.strategi: no such key (did you mean strategy"),
    ({"variants": {"mine": {"strategy": "tree", "improve": 7}}}, "variants.mine.improve: give a valid boolean"),
    (IMPROVED, "count: `improve` needs a count of 80 or more"),
    (
        {"variants": {"mine": {"strategy": "tree", "create": {"max_num_seqs": 8}}}},
        "variants.mine.create: max_num_seqs: an engine option; put it under the plan's `create`",
    ),
    (
        {
            "variants": {"mine": {"strategy": "tree", "create": {"verifier": "qwen3-8b"}}},
            "create": {"verify": "off"},
        },
        "variants.mine.create: with `create` of the plan: --verifier: --verify off verifies nothing",
    ),
    ({"conditions": ["human+mine"]}, "conditions: no condition 'human+mine'"),
    ({"name": "../x"}, "name: String should match pattern"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_wrong_key_is_one_line(changes: dict[str, Any], message: str, bench: Bench) -> None:
    bench.write(**changes)
    with pytest.raises(UsageError) as caught:
        load_plan(str(bench.plan))
    assert str(caught.value).startswith(f"plan {bench.plan}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"conditions: [tree\n", "not valid YAML at line 2, column 1"),
        (b"- tree\n", "not a mapping"),
        (b"", "not a mapping"),
        (b"conditions: [tree]\n", "benchmarks: this key is required"),
        (b"train: {epochs: 1, epochs: 2}\n", "line 1: the key epochs is given twice"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
    ],
)
def test_a_file_that_is_no_plan_is_one_line(text: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_plan(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cpu", "evidence", "inputs", "paper"])
def test_shipped_plans_are_valid(name: str) -> None:
    plan = load_plan(name)
    assert plan.name == name
    assert plan.description
    assert build_cells(plan)
    files = [variant.create.get("attributes") for variant in plan.variants.values()]
    assert all(path.is_absolute() and path.is_file() for path in files if path)  # relative to the plan


def test_the_plan_of_the_paper_has_its_whole_grid() -> None:
    plan = load_plan("paper")
    assert len(plan.benchmarks) == 10
    assert {"human-full", "random", "diverse", "similar", "tree"} <= set(plan.conditions)
    assert (plan.train, plan.count) == ({"recipe": "paper"}, "train")
    full = [cell.steps[-1] for cell in build_cells(plan) if cell.name.endswith("-full")]
    assert sum(step.command.count("--benchmark") - 1 for step in full) == 10  # pairs out of distribution


def test_the_documentation_has_a_valid_plan_and_every_key(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "sweeps.md").read_text()
    (tmp_path / "p.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    assert build_cells(load_plan(str(tmp_path / "p.yaml")))
    assert [name for name in SweepPlan.model_fields if f"\n| `{name}` |" not in text] == []


def test_a_file_is_found_before_a_shipped_plan(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.folder)
    Path("cpu").write_text(bench.write().read_text())
    assert load_plan("cpu").benchmarks == ("creak",)
    with pytest.raises(UsageError, match=r"papr: no such file, and no shipped plan \(did you mean paper"):
        load_plan("papr")


def test_a_folder_that_cannot_be_created_is_one_line(bench: Bench) -> None:
    sweep = Sweep(load_plan(str(bench.write())), bench.plan / "below")
    with pytest.raises(DatacreateError, match=r"plan\.yaml"):
        sweep.run()
