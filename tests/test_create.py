"""Creation with a scripted engine: exactly what was asked for, whatever the engine does."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.engines.base import Completion, Request
from datacreate.errors import EngineError, ExampleError, NoProgress, PromptTooLong
from datacreate.formats.example import Example
from datacreate.formats.text_normalization import normalize_text
from datacreate.runs.directory import RunDirectory
from tests.driver import ignorant
from tests.filters.texts import HashedWords
from tests.making import (
    COMMONSENSE,
    NLI,
    NLI_LABELS,
    STRATEGIES,
    SharedWords,
    commits,
    examples,
    make,
    shuffled,
    train,
)
from tests.scripted import Script, ScriptedEngine, answering, fill, saying


@pytest.mark.parametrize(
    ("strategy", "count"),
    [*(("tree", count) for count in (1, 4, 5, 7, 25)), *((strategy, 53) for strategy in STRATEGIES)],
)
def test_exactly_the_count_valid_and_new(tmp_path: Path, model: str, strategy: str, count: int) -> None:
    summary = make(tmp_path / "run", model, strategy=strategy, count=count, concurrency=None)
    made = examples(tmp_path / "run")
    schema = RunDirectory(tmp_path / "run").read_config().spec.format
    for example in made:
        jsonschema.validate(example, schema)
        assert list(example) == list(COMMONSENSE)
        assert example["label"] in example["options"]
    questions = {normalize_text(example["question"]) for example in made}
    assert len(made) == len(questions) == summary["accepted"] == count
    assert normalize_text(COMMONSENSE["question"]) not in questions


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_vocabulary_full_of_repeats_still_gives_the_count_without_any(
    tmp_path: Path, model: str, strategy: str
) -> None:
    summary = make(tmp_path / "run", model, answering(vocabulary=120), strategy=strategy, count=60)
    questions = {example["question"] for example in examples(tmp_path / "run")}
    assert len(questions) == 60
    assert summary["rejected"]["duplicate"] > 10


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_order_of_arrival_and_capacity_decide_nothing(
    tmp_path_factory: pytest.TempPathFactory, model: str, strategy: str
) -> None:
    @settings(max_examples=6)
    @given(order=st.integers(0, 2**32), capacity=st.integers(1, 9))
    def holds(order: int, capacity: int) -> None:
        other = tmp_path_factory.mktemp("run")
        make(other, model, shuffled(order, capacity), strategy=strategy, count=40)
        assert train(other) == expected

    first = tmp_path_factory.mktemp("first")
    make(first, model, strategy=strategy, count=40)
    expected = train(first)
    holds()


def test_labels_are_dealt_the_same_whatever_the_order_of_arrival(tmp_path: Path, model: str) -> None:
    for order in range(4):
        make(
            tmp_path / str(order), model, shuffled(order, 1 + order), example=NLI, labels=NLI_LABELS, count=40
        )
    assert len({train(tmp_path / str(order)) for order in range(4)}) == 1


@pytest.mark.parametrize("strategy", ["random", "tree"])
def test_another_seed_chooses_other_parents(tmp_path: Path, model: str, strategy: str) -> None:
    def by_index(request: Request) -> Completion:  # the same answer to a request whoever is asked
        return answering()(Request(request.id, [], request.schema, request.sampling))

    for seed in (1, 2):
        make(tmp_path / str(seed), model, by_index, strategy=strategy, seed=seed, count=100)
    one, two = ([commit.parent for commit in commits(tmp_path / str(seed))] for seed in (1, 2))
    assert one != two


@pytest.mark.parametrize("strategy", ["naive", "random", "diverse", "similar"])
def test_chains_ask_a_child_of_their_own_last_request(tmp_path: Path, model: str, strategy: str) -> None:
    concurrency = 4
    make(tmp_path, model, strategy=strategy, count=100, concurrency=concurrency)
    made = commits(tmp_path)
    root = made[0].parent
    assert {commit.parent for commit in made[:concurrency]} == {root}

    for commit in made[concurrency:]:
        before = made[commit.request - concurrency]
        children = {Example(values).id for values in before.accepted}
        if strategy == "naive":
            assert commit.parent == root
        else:
            assert commit.parent in children
            assert commit.depth == before.depth + 1


def test_tree_asks_breadth_first_and_grows_deeper(tmp_path: Path, model: str) -> None:
    summary = make(tmp_path, model, strategy="tree", count=200, concurrency=5)
    depths = [commit.depth for commit in commits(tmp_path)]
    grown = depths[depths.index(1) :]
    assert grown == sorted(grown)
    assert max(depths) >= 2
    assert sum(summary["depths"].values()) == 200


def test_tree_shuffles_siblings(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, strategy="tree", count=60)
    orders = {commit.chosen for commit in commits(tmp_path) if len(commit.accepted) == 5}
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert len(orders) > 3


@pytest.mark.parametrize(("strategy", "pick"), [("similar", max), ("diverse", min)])
def test_similar_and_diverse_choose_by_likeness(tmp_path: Path, model: str, strategy: str, pick: Any) -> None:
    make(tmp_path, model, answering(vocabulary=30), strategy=strategy, count=20)

    texts = {Example(COMMONSENSE).id: COMMONSENSE["question"]}
    for commit in commits(tmp_path):
        texts |= {Example(values).id: values["question"] for values in commit.accepted}
        if commit.accepted:
            scores = SharedWords().similarities(
                texts[commit.parent], [values["question"] for values in commit.accepted]
            )
            assert scores[commit.chosen[0]] == pick(scores)


# Labels


@pytest.mark.parametrize("count", [1, 7, 53])
def test_labels_come_out_even_to_one(tmp_path: Path, model: str, count: int) -> None:
    summary = make(tmp_path, model, example=NLI, labels=NLI_LABELS, count=count)
    counts = Counter(example["label"] for example in examples(tmp_path))
    assert sum(counts.values()) == count
    assert max(counts.values()) - min(counts[label] for label in NLI_LABELS["label"].split(",")) <= 1
    assert summary["labels"] == dict(sorted(counts.items()))


def test_a_model_that_likes_one_label_is_held_to_the_quota(tmp_path: Path, model: str) -> None:
    def leaning(request: Request) -> Completion:
        answer = answering()(request)
        if request.id % 4 == 0:
            return answer
        return ignorant(request)

    summary = make(tmp_path, model, leaning, example=NLI, labels=NLI_LABELS, count=31)
    counts = Counter(example["label"] for example in examples(tmp_path))
    assert sorted(counts.values()) == [10, 10, 11]
    assert summary["rejected"]["over_quota"] > 10


def test_a_model_that_knows_only_one_label_stops_with_its_share_kept(tmp_path: Path, model: str) -> None:
    with pytest.raises(NoProgress, match="over_quota"):
        make(tmp_path, model, ignorant, example=NLI, labels=NLI_LABELS, count=31)
    assert len(examples(tmp_path)) == 11


# The paper's way


def test_paper_works_on_one_request_at_a_time_and_deals_no_labels(tmp_path: Path, model: str) -> None:
    engine = ScriptedEngine(answering(), capacity=8)
    make(tmp_path, model, engine, example=NLI, labels=NLI_LABELS, count=40, method="paper", concurrency=None)
    assert RunDirectory(tmp_path).read_config().spec.concurrency == 1
    assert all('"const"' not in (request.schema or "") for request in engine.history)
    assert [request.id for request in engine.history] == list(range(len(engine.history)))
    counts = Counter(example["label"] for example in examples(tmp_path))
    assert max(counts.values()) - min(counts.values()) > 1


def test_paper_loses_an_array_that_was_cut_off_and_drops_faulty_items_singly(
    tmp_path: Path, model: str
) -> None:
    def faulty(request: Request) -> Completion:
        assert request.schema
        items = fill(json.loads(request.schema), random.Random(request.id), 10**6)
        if request.id % 2:
            return Completion(request.id, json.dumps(items)[:-3], "length", 50, 50)
        for item in items:
            item["label"] = item["options"][0]
        items[2]["label"] = "none of them"
        return Completion(request.id, json.dumps(items), "stop", 50, 50)

    # The options of the example are not fixed in number by the grammar's script alone.
    make(tmp_path, model, faulty, count=20, method="paper", strategy="random", concurrency=None)
    for commit in commits(tmp_path):
        if commit.request % 2:
            assert not commit.accepted
            assert [reject.reason for reject in commit.rejects] == ["truncated"]
        else:
            assert len(commit.accepted) == 4
            assert [reject.reason for reject in commit.rejects] == ["answer_not_in_options"]


def test_a_cut_off_array_still_gives_its_whole_items(tmp_path: Path, model: str) -> None:
    def cut(request: Request) -> Completion:
        text = answering()(request).text
        return Completion(request.id, text[:-20], "length", 50, 50)

    summary = make(tmp_path, model, cut, count=20)
    assert summary["accepted"] == 20
    assert summary["rejected"]["truncated"] == summary["requests"]


# Engine trouble


HOPELESS: dict[str, tuple[Script, str]] = {
    "error": (saying("", "error", "the request was lost"), "no_response"),
    "garbage": (saying("I would rather not."), "invalid_json"),
    "truncated": (saying('[["what', "length"), "truncated"),
    "empty": (saying("[]"), "no_response"),
    "too deep": (saying("[" * 100_000), "invalid_json"),
    "other shape": (saying('[{"a": 1}]'), "schema_violation"),
}


@pytest.mark.parametrize("kind", HOPELESS)
def test_a_model_that_writes_nothing_usable_stops_with_reasons_and_samples(
    tmp_path: Path, model: str, kind: str
) -> None:
    script, reason = HOPELESS[kind]
    engine = ScriptedEngine(script)
    with pytest.raises(NoProgress) as caught:
        make(tmp_path, model, engine)
    message = str(caught.value)
    assert f"{reason} 69" in message  # the patience of 64 and the window of 5
    assert message.count(f"{reason}: ") == 3
    assert "\n" not in message
    assert engine.closed
    assert len(engine.history) < 100
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["accepted"] == 0
    assert not summary["finished"]


def test_the_same_answer_for_ever_stops_and_keeps_what_was_new(tmp_path: Path, model: str) -> None:
    items = [[f"question {n}", list("abcde")] for n in range(5)]
    with pytest.raises(NoProgress, match="duplicate"):
        make(tmp_path, model, saying(json.dumps(items)), count=25)
    assert len(examples(tmp_path)) == 5


def test_running_again_after_no_progress_has_its_patience_back(tmp_path: Path, model: str) -> None:
    for _ in range(2):
        engine = ScriptedEngine(saying("no"))
        with pytest.raises(NoProgress):
            make(tmp_path, model, engine, patience=10)
        assert len(engine.history) > 10
    make(tmp_path, model)
    assert len(examples(tmp_path)) == 25


def test_an_engine_that_dies_keeps_what_was_committed_and_the_next_run_ends_alike(
    tmp_path: Path, model: str
) -> None:
    make(tmp_path / "whole", model)
    dying = ScriptedEngine(answering(), dies_after=3)
    with pytest.raises(EngineError, match="ended"):
        make(tmp_path / "run", model, dying)
    assert dying.closed
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["accepted"] < 25
    make(tmp_path / "run", model)
    assert train(tmp_path / "run") == train(tmp_path / "whole")


def test_the_engine_is_closed_and_told_what_it_need_not_finish(tmp_path: Path, model: str) -> None:
    engine = ScriptedEngine(answering(), capacity=4)
    make(tmp_path, model, engine, count=5, concurrency=8)
    assert engine.closed
    assert set(engine.aborted) <= {request.id for request in engine.history}


def test_a_finished_run_does_not_load_the_model_again(tmp_path: Path, model: str) -> None:
    first = make(tmp_path, model)
    engine = ScriptedEngine(answering())
    assert make(tmp_path, model, engine) == first
    assert not engine.started
    assert engine.closed


def test_a_prompt_that_cannot_fit_is_an_error_before_the_engine_starts(tmp_path: Path, model: str) -> None:
    engine = ScriptedEngine(answering())
    with pytest.raises(PromptTooLong, match="4096"):
        make(tmp_path / "run", model, engine, example={**COMMONSENSE, "question": "long " * 4000})
    assert not engine.started
    assert not (tmp_path / "run").exists()


def test_a_long_example_is_asked_for_fewer_at_a_time(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, example={**COMMONSENSE, "question": "long " * 500}, count=3)
    assert RunDirectory(tmp_path).read_config().spec.num_examples < 5


def test_an_example_with_half_a_character_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(ExampleError, match="lone surrogate"):
        make(tmp_path / "run", model, example={"text": "a \ud800 b"})
    assert not (tmp_path / "run").exists()


def test_summary_has_every_figure(tmp_path: Path, model: str) -> None:
    summary = make(tmp_path, model)
    keys = "requested accepted rejected requests prompt_tokens generated_tokens seconds examples_per_second"
    assert set(f"{keys} tokens_per_second depths labels".split()) <= set(summary)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary == RunDirectory(tmp_path).summary()
    card = (tmp_path / "README.md").read_text()
    assert "| 1 | " in card


def test_whoever_embeds_has_all_texts_of_an_answer_embedded_at_once(tmp_path: Path, model: str) -> None:
    embedder = HashedWords()
    make(tmp_path, model, embedder=embedder, semantic=0.9, count=20)
    embedded = {COMMONSENSE["question"]}  # the formatting example's, which is asked for by itself
    for texts in embedder.asked:
        # What is asked for alone is remembered from when all were asked for.
        assert len(texts) > 1 or embedded.issuperset(texts)
        embedded.update(texts)
    assert len(embedded) >= 21
