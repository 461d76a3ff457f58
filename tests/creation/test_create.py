"""Generation with a scripted client: exactly the requested count, whatever the client returns."""

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

from datacreate.cli.show import print_summary
from datacreate.engines.request import Completion, Request
from datacreate.errors import NoProgress, PromptTooLong
from datacreate.formats.example import Example
from datacreate.formats.text_normalization import normalize_text
from datacreate.runs.directory import RunDirectory
from tests.filters.texts import HashedWords
from tests.support.driver import ignorant
from tests.support.making import COMMONSENSE, NLI, NLI_LABELS, STRATEGIES, commits, examples, make, shuffled, train
from tests.support.scripted import Script, ScriptedClient, answering, fill, saying


@pytest.mark.parametrize(
    ("strategy", "count"), [*(("tree", count) for count in (1, 4, 5, 7)), *((strategy, 53) for strategy in STRATEGIES)]
)
def test_the_count_is_exact_and_all_examples_are_valid_and_new(
    tmp_path: Path, model: str, strategy: str, count: int
) -> None:
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
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary


@pytest.mark.parametrize(
    ("output", "repeats"),
    [("El tren ha llegado.", False), ("the train is late.", True)],  # of the formatting example
)
def test_an_answer_may_repeat_an_input_only_if_the_formatting_example_does(
    tmp_path: Path, model: str, output: str, repeats: bool
) -> None:
    example = {"instruction": "Correct or translate.", "input": "The train is late.", "output": output}

    def script(request: Request) -> Completion:
        texts = [f"Sentence {5 * request.id + i} is fine." for i in range(5)]
        rows = [["Translate this.", text, [text.upper(), "Bien."][i % 2]] for i, text in enumerate(texts)]
        return Completion(request.id, json.dumps(rows), "stop", 1, 1)

    summary = make(tmp_path / "run", model, script, example=example, count=4)
    assert ("answer_repeats_input" in summary["rejected"]) is not repeats
    assert any(row["output"] == row["input"].upper() for row in examples(tmp_path / "run")) is repeats


@pytest.mark.parametrize(("hypothesis", "repeats"), [("No train has come.", False), ("the train is late.", True)])
def test_two_inputs_may_be_equal_only_if_they_are_in_the_formatting_example(
    tmp_path: Path, model: str, hypothesis: str, repeats: bool
) -> None:
    example = {"premise": "The train is late.", "hypothesis": hypothesis, "output": "I will wait."}

    def script(request: Request) -> Completion:
        texts = [f"Sentence {5 * request.id + i} is fine." for i in range(5)]
        rows = [[text, [text.upper(), f"Not {text}"][i % 2], "Bien."] for i, text in enumerate(texts)]
        return Completion(request.id, json.dumps(rows), "stop", 1, 1)

    summary = make(tmp_path / "run", model, script, example=example, count=4)
    assert ("copied_example" in summary["rejected"]) is not repeats
    assert any(row["hypothesis"] == row["premise"].upper() for row in examples(tmp_path / "run")) is repeats


def test_two_turns_in_one_input_may_be_equal(tmp_path: Path, model: str) -> None:
    example = {"turns": ["Is it late?", "Not yet."], "summary": "They speak about the time."}

    def script(request: Request) -> Completion:
        rows = [[["Thank you.", "Thank you.", f"Bye {5 * request.id + i}."], "They say thanks."] for i in range(5)]
        return Completion(request.id, json.dumps(rows), "stop", 1, 1)

    summary = make(tmp_path / "run", model, script, example=example, count=4)
    assert (summary["accepted"], summary["rejected"]) == (4, {"not_needed": 1})


def test_duplicates_are_replaced(tmp_path: Path, model: str) -> None:
    summary = make(tmp_path / "run", model, answering(vocabulary=120), count=60)
    assert len({example["question"] for example in examples(tmp_path / "run")}) == 60
    assert summary["rejected"]["duplicate"] > 10
    made = {commit.request_number: [row["question"] for row in commit.accepted] for commit in commits(tmp_path / "run")}
    for reject in (reject for commit in commits(tmp_path / "run") for reject in commit.rejects):
        if reject.reason == "duplicate":
            repeated = made[int(reject.detail.removeprefix("repeats an example of request "))]
            assert any(json.dumps(question) in reject.text for question in repeated)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_result_does_not_depend_on_arrival_order_or_capacity(
    tmp_path_factory: pytest.TempPathFactory, model: str, strategy: str
) -> None:
    changes = {"example": NLI, "labels": NLI_LABELS} if strategy == "tree" else {}

    @settings(max_examples=6)
    @given(order=st.integers(0, 2**32), slots=st.integers(1, 9))
    def check(order: int, slots: int) -> None:
        other = tmp_path_factory.mktemp("run")
        make(other, model, shuffled(order, slots), strategy=strategy, count=40, **changes)
        assert train(other) == expected

    first = tmp_path_factory.mktemp("first")
    make(first, model, strategy=strategy, count=40, **changes)
    expected = train(first)
    check()


@pytest.mark.parametrize("strategy", ["random", "tree"])
def test_another_seed_chooses_other_parents(tmp_path: Path, model: str, strategy: str) -> None:
    def ignores_parent(request: Request) -> Completion:
        return answering()(Request(request.id, [], request.schema, request.sampling))

    for seed in (1, 2):
        make(tmp_path / str(seed), model, ignores_parent, strategy=strategy, seed=seed, count=100)
    first, second = ([commit.parent for commit in commits(tmp_path / str(seed))] for seed in (1, 2))
    assert first != second


@pytest.mark.parametrize("strategy", ["naive", "random", "diverse", "similar"])
def test_the_parent_in_a_chain_is_a_child_of_its_previous_request(tmp_path: Path, model: str, strategy: str) -> None:
    chains = 4
    make(tmp_path, model, strategy=strategy, count=100, num_chains=chains)
    made = commits(tmp_path)
    root = made[0].parent
    assert {commit.parent for commit in made[:chains]} == {root}
    for commit in made[chains:]:
        previous = made[commit.request_number - chains]
        if strategy == "naive":
            assert commit.parent == root
        else:
            assert commit.parent in {Example(values).id for values in previous.accepted}
            assert commit.parent_depth == previous.parent_depth + 1


@pytest.mark.parametrize(("slots", "chains"), [(64, 6), (1, 3)])
@pytest.mark.parametrize("strategy", ["random", "diverse", "similar"])
def test_chains_are_deep_and_no_more_than_the_servers_can_use(
    tmp_path: Path, model: str, strategy: str, slots: int, chains: int
) -> None:
    client = ScriptedClient(answering(), slots=slots)
    automatic: dict[str, Any] = {"num_chains": None, "concurrency": None, "num_examples": 5}
    summary = make(tmp_path, model, client, strategy=strategy, count=300, **automatic)
    spec = RunDirectory(tmp_path).read_config().spec
    assert (spec.num_chains, spec.concurrency) == (chains, chains)
    assert max(map(int, summary["depths"])) >= 10
    assert summary["depths"]["1"] <= 0.2 * 300
    assert summary["depth_warning"] is None


def nested(kind: str) -> dict[str, Any]:
    """An example that is nearly as deep as one may be; the schema of it is deeper."""
    inner: Any = {"name": "A name."}
    for _ in range(9):
        inner = {"part": {"of": inner}} if kind == "objects" else {"parts": [inner]}
    return {"text": "Some text.", "data": inner}


@pytest.mark.parametrize("kind", ["objects", "lists"])
def test_a_run_of_a_deep_example_can_be_read(tmp_path: Path, model: str, kind: str) -> None:
    make(tmp_path, model, example=nested(kind), count=5)
    assert RunDirectory(tmp_path).read_config().spec.examples == (nested(kind),)
    assert len(list(RunDirectory(tmp_path).examples())) == 5


@pytest.mark.parametrize(
    ("strategy", "count", "warns"), [("random", 100, True), ("random", 95, False), ("naive", 100, False)]
)
def test_a_shallow_set_is_a_warning(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], strategy: str, count: int, warns: bool
) -> None:
    summary = make(tmp_path, model, strategy=strategy, count=count, num_chains=25, concurrency=25)
    print_summary(summary)
    shown = capsys.readouterr().out.replace("\n", " ")
    for text in (shown, (tmp_path / "README.md").read_text()):
        assert ("100 of 100 examples are direct children of formatting examples" in text) == warns
    assert "depth" in shown


def accepting(share: float) -> Script:
    """A script that writes this share of the examples correctly."""

    def script(request: Request) -> Completion:
        answer = answering()(request)
        rng = random.Random(f"{request.id}")
        items = [item if rng.random() < share else ["", []] for item in json.loads(answer.text)]
        return Completion(request.id, json.dumps(items), "stop", 50, 50)

    return script


@pytest.mark.parametrize("strategy", ["tree", "coverage"])
def test_at_most_half_of_a_small_run_are_children_of_the_formatting_example(
    tmp_path: Path, model: str, strategy: str
) -> None:
    for count in (40, 60):  # it grows from a log with the parents of the smaller run
        summary = make(tmp_path, model, ScriptedClient(answering(), slots=64), strategy=strategy, count=count)
        assert summary["accepted"] == count
        assert summary["depths"]["1"] == 20


@pytest.mark.parametrize("strategy", ["naive", "tree"])
@pytest.mark.parametrize(("count", "slots", "needed"), [(1000, 256, 250), (300, 32, 75)])
def test_few_more_requests_are_made_than_needed(
    tmp_path: Path, model: str, strategy: str, count: int, slots: int, needed: int
) -> None:
    client = ScriptedClient(accepting(0.8), slots=slots, shuffle=random.Random(0))
    make(tmp_path, model, client, strategy=strategy, count=count, concurrency=None)
    assert needed <= len(client.history) <= 1.1 * needed


# Labels


def test_quotas_balance_a_model_that_prefers_one_label(tmp_path: Path, model: str) -> None:
    def biased(request: Request) -> Completion:
        return answering()(request) if request.id % 4 == 0 else ignorant(request)

    summary = make(tmp_path / "biased", model, biased, example=NLI, labels=NLI_LABELS, count=31)
    counts = Counter(example["label"] for example in examples(tmp_path / "biased"))
    assert sorted(counts.values()) == [10, 10, 11]
    assert summary["rejected"]["over_quota"] > 10
    with pytest.raises(NoProgress, match=r"over_quota.*; the missing labels are too rare; try another model"):
        make(tmp_path / "one", model, ignorant, example=NLI, labels=NLI_LABELS, count=31)
    assert len(examples(tmp_path / "one")) == 11


# The method of the paper


def test_paper_makes_one_request_at_a_time_and_assigns_no_labels(tmp_path: Path, model: str) -> None:
    client = ScriptedClient(answering(), slots=8)
    paper: dict[str, Any] = {"example": NLI, "labels": NLI_LABELS, "count": 40, "recipe": "paper"}
    make(tmp_path / "run", model, client, **paper, concurrency=None)
    assert RunDirectory(tmp_path / "run").read_config().spec.concurrency == 1
    assert all('"const"' not in (request.schema or "") for request in client.history)
    assert [request.id for request in client.history] == list(range(len(client.history)))
    counts = Counter(example["label"] for example in examples(tmp_path / "run"))
    assert max(counts.values()) - min(counts.values()) > 1
    make(tmp_path / "faster", model, **paper, concurrency=7)
    assert train(tmp_path / "faster") == train(tmp_path / "run")


def test_paper_loses_truncated_arrays_and_drops_single_invalid_items(tmp_path: Path, model: str) -> None:
    def faulty(request: Request) -> Completion:
        assert request.schema
        items = fill(json.loads(request.schema), random.Random(request.id), 10**6)
        if request.id % 2:
            return Completion(request.id, json.dumps(items)[:-3], "length", 50, 50)
        for item in items:
            item["label"] = item["options"][0]
        items[2]["label"] = "none of them"
        return Completion(request.id, json.dumps(items), "stop", 50, 50)

    make(tmp_path, model, faulty, count=20, recipe="paper", strategy="random", concurrency=None)
    for commit in commits(tmp_path):
        reasons = [reject.reason for reject in commit.rejects]
        if commit.request_number % 2:
            assert (commit.accepted, reasons) == ((), ["truncated"])
        else:
            assert (len(commit.accepted), reasons) == (4, ["answer_not_in_options"])


# Engine failures


def test_a_truncated_array_still_gives_its_complete_items(tmp_path: Path, model: str) -> None:
    def cut(request: Request) -> Completion:
        return Completion(request.id, answering()(request).text[:-20], "length", 50, 50)

    summary = make(tmp_path, model, cut, count=20)
    assert summary["accepted"] == 20
    assert summary["rejected"]["truncated"] == summary["requests"]


UNUSABLE: dict[str, tuple[Script, str, str]] = {
    "error": (saying("", "error", "the request was lost"), "no_response", "if it has no error, try another model"),
    "prose": (saying("I would rather not."), "invalid_json", "try another model or example"),
    "truncated": (saying('[["what', "length"), "truncated", "try a larger --max-tokens"),
    "empty": (saying("[]"), "no_response", "if it has no error, try another model"),
    "other shape": (saying('[{"a": 1}]'), "schema_violation", "try another model or example"),
}
"""Script, reason, and what to do."""


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_model_without_usable_output_fails_with_reasons_and_samples(tmp_path: Path, model: str, kind: str) -> None:
    script, reason, advice = UNUSABLE[kind]
    client = ScriptedClient(script)
    with pytest.raises(NoProgress) as raised:
        make(tmp_path, model, client)
    message = str(raised.value)
    assert f"{reason} 69" in message  # 64, and the concurrency of 5
    assert message.count(f"{reason}: ") == 3
    assert advice in message
    assert "\n" not in message
    assert client.closed
    assert len(client.history) < 100
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["accepted"], summary["finished"]) == (0, False)
    assert not (tmp_path / "README.md").exists()  # a data set without examples has no card
    make(tmp_path, model)  # resumes, and counts from 0
    assert len(examples(tmp_path)) == 25
    assert (tmp_path / "README.md").exists()


@pytest.mark.parametrize(("repeats", "advice"), [(100, "try more formatting examples"), (40, "look into the log")])
def test_a_model_that_repeats_itself_fails_and_keeps_what_was_new(
    tmp_path: Path, model: str, repeats: int, advice: str
) -> None:
    """The advice is about the last failures, also if others are more frequent."""
    repeated = saying(json.dumps([[f"question {n}", list("abcde")] for n in range(5)]))
    failed = saying("", "error", "HTTP 400")

    def script(request: Request) -> Completion:
        return repeated(request) if request.id < repeats else failed(request)

    with pytest.raises(NoProgress, match=rf"rejects: duplicate .*; {advice}"):
        make(tmp_path, model, script, count=25)
    assert len(examples(tmp_path)) == 5


def test_long_examples_reduce_the_examples_per_request_or_fail_before_the_start(tmp_path: Path, model: str) -> None:
    make(tmp_path / "long", model, example={**COMMONSENSE, "question": "long " * 500}, count=3)
    assert RunDirectory(tmp_path / "long").read_config().spec.num_examples < 5
    client = ScriptedClient(answering())
    with pytest.raises(PromptTooLong, match="4096"):
        make(tmp_path / "run", model, client, example={**COMMONSENSE, "question": "long " * 4000})
    assert not client.started
    assert not (tmp_path / "run").exists()


def test_all_texts_of_a_completion_are_embedded_in_one_batch(tmp_path: Path, model: str) -> None:
    embedder = HashedWords()
    make(tmp_path, model, embedder=embedder, semantic=0.9, count=20)
    embedded = {COMMONSENSE["question"]}  # the formatting example is embedded alone
    for texts in embedder.calls:
        assert len(texts) > 1 or embedded.issuperset(texts)
        embedded.update(texts)
    assert len(embedded) >= 21
