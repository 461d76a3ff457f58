"""From a plan to cells, and from a cell to commands."""

from __future__ import annotations

import pytest

from datacreate.errors import UsageError
from datacreate.sweep.cells import Step
from tests.sweep.conftest import Bench

READER = {"encoders": ["./models/reader"]}


def names(bench: Bench, **changes: object) -> list[str]:
    return [cell.name for cell in bench.sweep(**changes).cells]


def trainings(bench: Bench, **changes: object) -> dict[str, list[str]]:
    """Cell -> the names of its trainings."""
    return {
        cell.name: [step.folder.name for step in cell.steps if step.subcommand == "train"]
        for cell in bench.sweep(**{**READER, **changes}).cells
    }


def commands(bench: Bench, **changes: object) -> list[str]:
    """The commands of the first cell, without the folder of the models."""
    [cell, *_] = bench.sweep(**changes).cells
    return [" ".join(step.command).replace(f"{bench.folder}/models/", "") for step in cell.steps]


def test_cells_are_benchmarks_times_sets_of_rows(bench: Bench) -> None:
    found = names(
        bench,
        benchmarks=["creak", "csqa"],
        conditions=["human-full", "human", "random", "tree"],
        example_seeds=[7, 8],
        **READER,
    )
    of_one = ["human-full", "human-7", "human-8"]
    of_one += ["writer-random-7", "writer-random-8", "writer-tree-7", "writer-tree-8"]
    assert found == [f"{benchmark}-{cell}" for benchmark in ("creak", "csqa") for cell in of_one]


def test_a_cell_creates_trains_and_measures(bench: Bench) -> None:
    assert commands(bench, conditions=["tree"], train_seeds=[1, 2], **READER) == [
        "create --benchmark creak --strategy tree --count 10 --model writer --seed 42 "
        "--run-dir runs/creak-writer-tree-42",
        "train runs/creak-writer-tree-42 --encoder reader "
        "--out trained/creak-writer-tree-42/tree-reader-10 --seeds 1,2",
        "evaluate trained/creak-writer-tree-42/tree-reader-10 --benchmark creak --benchmark strategyqa",
    ]


def test_a_variant_is_a_strategy_with_options_of_its_own(bench: Bench) -> None:
    verified = {
        "strategy": "coverage",
        "create": {"verifier": "./models/writer", "verify": "soft"},
        "train": {"soft_labels": True},
    }
    assert commands(
        bench,
        variants={"mine": verified},
        conditions=["mine", "human+mine"],
        create={"temperature": 0.8},
        train_seeds=[1],
        **READER,
    ) == [
        "create --benchmark creak --strategy coverage --count 10 --model writer --seed 42 --temperature 0.8 "
        "--verifier writer --verify soft --run-dir runs/creak-writer-mine-42",
        "train runs/creak-writer-mine-42 --condition mine --encoder reader --soft-labels "
        "--out trained/creak-writer-mine-42/mine-reader-10 --seeds 1",
        "evaluate trained/creak-writer-mine-42/mine-reader-10 --benchmark creak --benchmark strategyqa",
        "train creak runs/creak-writer-mine-42 --condition human+mine --encoder reader --soft-labels --human-count 10 "
        "--sample-seed 42 --out trained/creak-writer-mine-42/human+mine-reader-10+10 --seeds 1",
        "evaluate trained/creak-writer-mine-42/human+mine-reader-10+10 --benchmark creak --benchmark strategyqa",
    ]


def test_a_variant_can_improve_its_rows(bench: Bench) -> None:
    variants = {
        "more": {"strategy": "tree", "improve": True},
        "verified": {"strategy": "tree", "improve": True, "create": {"verifier": "./models/writer"}},
    }
    half = commands(bench, variants=variants, conditions=["more"], train_seeds=[1], count=100, **READER)
    assert half[:3] == [
        "create --benchmark creak --strategy tree --count 50 --model writer --seed 42 "
        "--run-dir runs/creak-writer-more-42",
        "improve runs/creak-writer-more-42 --count 50 --encoder reader --model writer "
        "--run-dir runs/creak-writer-more-42-improved",
        "train runs/creak-writer-more-42 runs/creak-writer-more-42-improved --condition more --encoder reader "
        "--out trained/creak-writer-more-42/more-reader-100 --seeds 1",
    ]
    _, improve, *_ = commands(bench, variants=variants, conditions=["verified"], count=100, **READER)
    assert " --encoder reader --model writer --verifier writer --run-dir" in improve
    with pytest.raises(UsageError, match="encoders: the condition more needs at least one to train"):
        bench.sweep(variants=variants, conditions=["more"])


def test_variants_that_differ_only_in_the_training_share_a_set(bench: Bench) -> None:
    variants = {
        "off": {"strategy": "tree", "create": {"verify": "soft"}},
        "soft": {"strategy": "tree", "create": {"verify": "soft"}, "train": {"soft_labels": True}},
        "other": {"strategy": "tree"},
    }
    assert trainings(bench, variants=variants, conditions=["off", "soft", "other"]) == {
        "creak-writer-off-42": ["off-reader-10", "soft-reader-10"],
        "creak-writer-other-42": ["other-reader-10"],
    }


def test_further_options_reach_create_and_train(bench: Bench) -> None:
    (bench.folder / "models" / "lora").mkdir()
    create, train, _ = commands(
        bench,
        create={"recipe": "paper", "max_num_seqs": 8, "adapter": "./models/lora"},
        train={
            "learning_rates": [1e-5, 2e-5],
            "epochs": 3,
            "lora": True,
            "nproc": 2,
            "recipe": "paper",
            "model_selection": "none",
        },
        **READER,
    )
    assert "--adapter lora --recipe paper --run-dir" in create
    assert create.endswith(" --max-num-seqs 8")
    rates = "--learning-rates 1e-05 --learning-rates 2e-05"
    assert f"--recipe paper {rates} --epochs 3 --lora --model-selection none --out" in train
    assert train.endswith(" --seeds 1 --nproc 2")


def test_a_validation_file_of_a_plan_is_relative_to_it_and_replaces_the_dev_split(bench: Bench) -> None:
    file = bench.folder / "mine.jsonl"
    file.write_text("{}")
    plan = {"train": {"validation": "mine.jsonl", "recipe": "paper"}, "conditions": ["human"], **READER}
    [cell] = bench.sweep(**plan).cells
    assert f"--recipe paper --validation {file} --count 10 --sample-seed 42 --out" in " ".join(cell.steps[0].command)
    assert ("dev", "creak") not in cell.steps[0].needs
    plan |= {"variants": {"mine": {"strategy": "tree", "train": {"model_selection": "none"}}}, "conditions": ["mine"]}
    with pytest.raises(
        UsageError, match=r"^plan .*: variants.mine.train: .*--validation: --model-selection none takes other"
    ):
        bench.sweep(**plan)


def test_engine_options_are_no_part_of_the_identity(bench: Bench) -> None:
    def steps(*urls: str) -> list[Step]:
        create = {"url": list(urls), "request_timeout": 9, "temperature": 0.5}
        sweep = bench.sweep(create=create, conditions=["random"], generators=["unknown-here"])
        return [step for cell in sweep.cells for step in cell.steps]

    for step in steps("http://a:1", "./servers"):
        command = " ".join(step.command)
        assert f"--url http://a:1 --url {bench.folder}/servers --request-timeout 9" in command
        assert "--temperature 0.5" in command
    [cell] = bench.sweep(create={"url": "./servers"}, conditions=["random"], generators=["unknown-here"]).cells
    assert f"--url {bench.folder}/servers" in " ".join(cell.steps[0].command)
    [cell] = bench.sweep(create={"url": "a:1,later/servers"}, conditions=["random"], generators=["unknown-here"]).cells
    assert f"--url a:1 --url {bench.folder}/later/servers" in " ".join(cell.steps[0].command)
    moved = steps("http://c:3")
    assert [step.identity for step in moved] == [step.identity for step in steps("http://a:1")]


def test_soft_labels_are_for_conditions_with_created_rows(bench: Bench) -> None:
    conditions = ["human", "tree", "human+tree"]
    cells = bench.sweep(conditions=conditions, train={"soft_labels": True}, **READER).cells
    trainings = [step for cell in cells for step in cell.steps if step.subcommand == "train"]
    assert ["--soft-labels" in step.command for step in trainings] == [False, True, True]


def test_a_learning_curve_is_drawn_from_one_created_set(bench: Bench) -> None:
    first, second = "train-tree-reader-4-of-10", "train-tree-reader-10"
    [cell] = bench.sweep(conditions=["tree"], sizes=[4, "all"], **READER).cells
    assert [step.name for step in cell.steps if step.subcommand == "train"] == [first, second]
    texts = {step.name: " ".join(step.command) for step in cell.steps}
    assert "--count 4 --sample-seed 42" in texts[first]
    assert "--count" not in texts[second]
    assert "--count 10" in texts["create"]


def test_human_rows_are_as_many_as_are_created(bench: Bench) -> None:
    [train, _] = commands(bench, conditions=["human"], count=50, example_seeds=[7], **READER)
    assert train.startswith("train creak ")
    assert "--count 50 --sample-seed 7" in train


def test_a_sample_of_all_human_rows_is_there_once(bench: Bench) -> None:
    plan = {"count": "train", "example_seeds": [7, 8], "conditions": ["human"]}
    assert trainings(bench, **plan) == {"creak-human-7": ["human-reader-full"]}
    assert trainings(bench, **plan | {"conditions": ["human", "human-full"]}) == {
        "creak-human-full": ["human-full-reader-full"]
    }
    assert trainings(bench, **plan, sizes=[100, "all"]) == {
        "creak-human-7": ["human-reader-100", "human-reader-full"],
        "creak-human-8": ["human-reader-100"],
    }
    more_than_there_are = {"benchmarks": ["winogrande"], "count": 200, "sizes": [170, 180, "all"]}  # it has 160 rows
    assert trainings(bench, **plan | more_than_there_are) == {"winogrande-human-7": ["human-reader-full"]}


def test_the_count_train_is_that_of_each_benchmark(bench: Bench) -> None:
    sweep = bench.sweep(benchmarks=["creak", "winogrande"], count="train", sizes=[1000, "all"], **READER)
    assert [cell.steps[0].examples for cell in sweep.cells] == [10176, 160]
    drawn = [[step.folder.name for step in cell.steps if step.subcommand == "train"] for cell in sweep.cells]
    assert drawn == [["random-reader-1000-of-10176", "random-reader-10176"], ["random-reader-160"]]


def test_named_test_sets_are_those_that_the_head_can_answer(bench: Bench) -> None:
    sweep = bench.sweep(benchmarks=["creak", "csqa"], test=["csqa", "boolq_open", "creak"], **READER)
    asked = [[word for word in cell.steps[-1].command if not word.startswith("--")][2:] for cell in sweep.cells]
    assert asked == [["boolq_open", "creak"], ["csqa"]]
