"""`--attributes`: exact shares of each value, lengths that are checked, the same after a kill."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.commands.attribute_suggestion import suggest_attributes
from datacreate.creation.quotas import RunQuotas
from datacreate.engines.request import Completion, Request
from datacreate.errors import EngineError, PromptTooLong, RunError, RunMismatch, UsageError
from datacreate.messages import no_notify
from datacreate.runs.attributes import read_attributes
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from datacreate.runs.export import export
from tests.corpus.texts import passage
from tests.support.inprocess import run
from tests.support.making import NLI, NLI_LABELS, STRATEGIES, commits, examples, exported, make, train
from tests.support.scripted import ScriptedClient, answering
from tests.support.verifying import FALLBACK, YES_NO, knowing, verified, writing

FILE = """
topic: [sport, politics, science]
level: {easy: 0.7, hard: 0.3}
length:
  short: {words: [2, 4], share: 0.4}
  long: {words: [5, 9], share: 0.6}
"""
QA = {"question": "Who wrote it?", "answer": "A monk wrote it."}
STATED = re.compile(
    r"in the same way, but with topic: (\w+); level: (\w+); length: (\w+), \d to \d words in question, and all dif"
)


@pytest.fixture
def attributes(tmp_path: Path) -> Path:
    path = tmp_path / "attributes.yaml"
    path.write_text(FILE)
    return path


def of_any_length(request: Request) -> Completion:
    """Writes questions of 1 to 12 words, some of them twice."""
    rng = random.Random(f"{request.id}:{request.messages}")
    items = [
        [" ".join(f"w{rng.randrange(300)}" for _ in range(rng.randint(1, 12))), f"a{rng.random()}"] for _ in range(5)
    ]
    return Completion(request.id, json.dumps(items), "stop", 50, 50)


def counts(run_dir: Path) -> dict[str, Counter[str]]:
    """Dimension -> value -> accepted examples, from the log."""
    found: dict[str, Counter[str]] = {}
    for commit in commits(run_dir):
        for name, value in commit.attributes.items():
            found.setdefault(name, Counter())[value] += len(commit.accepted)
    return found


def assert_exact(counted: Counter[str], shares: dict[str, float]) -> None:
    for value, share in shares.items():
        assert abs(counted[value] - share * counted.total()) < 1 + 1e-6, counted


def test_a_file_is_read_as_dimensions(attributes: Path) -> None:
    topic, level, length = read_attributes(attributes)
    assert topic.shares == {"sport": 1 / 3, "politics": 1 / 3, "science": 1 / 3}
    assert level.shares == {"easy": 0.7, "hard": 0.3}
    assert [(value.name, value.words, value.share) for value in length.values] == [
        ("short", (2, 4), 0.4),
        ("long", (5, 9), 0.6),
    ]
    attributes.write_text("form: {words: 0.5, numbers: 0.5}\nof: {share: 0.4, rent: 0.6}\n")
    assert [list(each.shares) for each in read_attributes(attributes)] == [["words", "numbers"], ["share", "rent"]]
    attributes.write_text("length: {words: [5, 40]}\nyear: [1999, 2024]\nsure: [yes, true]\n")
    assert [list(each.shares) for each in read_attributes(attributes)] == [
        ["5 to 40 words"], ["1999", "2024"], ["yes", "True"],
    ]  # fmt: skip


WRONG = {
    "": ": no dimensions; write it as `topic: [sport, politics]`",
    "[a, b]": ": no dimensions",
    "topic: sport": ": topic: write it as `topic: [sport, politics]`",
    "a: [x, y]\ntopic: [sport]": ": topic: give at least two values",
    "topic: [sport, golf, Sport]": ": topic: a value 'Sport': given twice; give each another name",
    "a: [x, y]\n' a': [x, z]": ": a dimension 'a': given twice; give each another name",
    "a: [x, y]\na: [x, z]": ": line 2: the key a is given twice",
    "topic: [sport, '']": ": topic: a value '': empty, or a line end or control character; write one line",
    'topic: [sport, "go\\nlf"]': r": topic: a value 'go\nlf': empty, or a line end",
    'topic: [sport, "\\e[31mgolf"]': r": topic: a value '\x1b[31mgolf': empty, or a line end",
    "'': [x, y]": ": a dimension '': empty",
    "topic: [sport, [golf]]": ": topic: write it as",
    "level: {easy: 0.5, hard: 0.6}": ": level: the shares add up to 1.1; give shares that add up to 1",
    "level: {easy: 1.5, hard: 0.5}": ": level.easy: write it as",
    "level: {easy: 0.5, hard: }": ": level.hard: give each value a share, or none of them",
    "length:\n  short: {words: [2, 4]}\n  long: {word: [5, 9]}": ": length.long.word: unknown key",
    "length:\n  wrds: [5, 9]": ": length.wrds: write it as `topic: [sport, politics]`",
    "length:\n  short:\n    words: [9, 2]": ": length.short: words: the first number is larger than the second",
    "length: {words: [0, 2]}": ": length.words.0: write it as",
    "length: {words: 5}": ": length.words: write it as",
    "length: {words: [5, 9]}\nsize: {words: [5, 9]}": ": size: length also has words; give them to one dimension",
    "a: [x": ": not valid YAML at line 1, column 6",
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), WRONG.items())
def test_a_wrong_file_is_an_error_of_one_line(attributes: Path, model: str, content: str, message: str) -> None:
    attributes.write_text(content)
    with pytest.raises(UsageError, match=re.escape(f"--attributes {attributes}{message}")) as caught:
        make(attributes.parent / "run", model, example=QA, attributes=attributes)
    assert "\n" not in str(caught.value)
    assert not (attributes.parent / "run").exists()


def test_the_label_is_no_dimension(model: str, attributes: Path) -> None:
    attributes.write_text("Label: [entailment, neutral]\n")
    with pytest.raises(UsageError, match="Label is the label, and --label-ratio sets its shares; remove it"):
        make(attributes.parent / "run", model, example=NLI, labels=NLI_LABELS, attributes=attributes)


@given(
    dimensions=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), min_size=1, max_size=3),
    count=st.integers(1, 60),
    seed=st.integers(),
)
def test_assigned_values_fill_every_quota(dimensions: list[list[int]], count: int, seed: int) -> None:
    """Whatever each request gives, and in whatever order they end: no combination is missing at the end."""
    shares = {
        f"d{i}": {f"v{j}": weight / sum(weights) for j, weight in enumerate(weights)}
        for i, weights in enumerate(dimensions)
    }
    quotas, accepted, uncommitted, rng = RunQuotas(None, shares, count), [], [], random.Random(seed)
    for request in range(20 * count + 100):
        if len(accepted) == count:
            break
        uncommitted.append((request, quotas.assign_attributes(request, 4, rng)))
        if rng.random() < 0.5:
            continue
        ended, assigned = uncommitted.pop(rng.randrange(len(uncommitted)))
        quotas.end_request(ended)
        for _ in range(rng.randint(0, 5)):
            if len(accepted) < count and not quotas.full_attribute(assigned):
                quotas.add({}, assigned)
                accepted.append(assigned)
    assert len(accepted) == count
    for name, expected in shares.items():
        assert_exact(Counter(assigned[name] for assigned in accepted), expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_has_exact_shares_of_values_and_labels(tmp_path: Path, model: str, strategy: str) -> None:
    path = tmp_path / "attributes.yaml"
    path.write_text("topic: [a, b, c, d]\nlevel: {easy: 0.7, hard: 0.3}\n")
    summary = make(
        tmp_path / "run", model, ScriptedClient(answering(vocabulary=500), shuffle=random.Random(1)), example=NLI,
        labels=NLI_LABELS, attributes=path, count=61, strategy=strategy, concurrency=None,
    )  # fmt: skip
    found = counts(tmp_path / "run")
    assert summary["attributes"] == {name: dict(counted) for name, counted in found.items()}
    assert_exact(found["topic"], dict.fromkeys("abcd", 0.25))
    assert_exact(found["level"], {"easy": 0.7, "hard": 0.3})
    labels = Counter(values["label"] for values in examples(tmp_path / "run"))
    assert sorted(labels.values()) == [20, 20, 21]


def test_the_prompt_of_a_request_has_the_values_of_its_commit(tmp_path: Path, model: str, attributes: Path) -> None:
    client = ScriptedClient(of_any_length)
    make(tmp_path / "run", model, client, example=QA, attributes=attributes, count=40)
    stated = {request.id: STATED.search(request.messages[-1]["content"]) for request in client.history}
    for commit in commits(tmp_path / "run"):
        match = stated[commit.request_number]
        assert match
        assert list(commit.attributes.values()) == list(match.groups())
    plain = ScriptedClient(of_any_length)
    make(tmp_path / "plain", model, plain, example=QA, count=40)
    assert all("in the same way, about other topics." in request.messages[-1]["content"] for request in plain.history)
    assert "attributes" not in (tmp_path / "plain" / "log.jsonl").read_text()


def test_the_number_of_words_is_checked(tmp_path: Path, model: str, attributes: Path) -> None:
    summary = make(tmp_path / "run", model, of_any_length, example=QA, attributes=attributes, count=60)
    for values in RunDirectory(tmp_path / "run").examples(with_attributes=True):
        low, high = {"short": (2, 4), "long": (5, 9)}[values["attributes.length"]]
        assert low <= len(values["question"].split()) <= high
    assert_exact(counts(tmp_path / "run")["length"], {"short": 0.4, "long": 0.6})
    assert summary["rejected"]["wrong_length"] > 20
    details = {reject.detail for commit in commits(tmp_path / "run") for reject in commit.rejects}
    assert "1 words, expected 2 to 4" in details


def test_max_tokens_hold_as_many_words_as_are_asked_for(tmp_path: Path, model: str, attributes: Path) -> None:
    attributes.write_text("length: {words: [80, 100]}")

    def script(request: Request) -> Completion:
        items = [[f"w{request.id}.{n} " * 90, "A monk."] for n in range(5)]
        return Completion(request.id, json.dumps(items), "stop", 50, 50)

    make(tmp_path / "run", model, script, example=QA, attributes=attributes, count=4)
    sampling = RunDirectory(tmp_path / "run").read_config().spec.sampling
    assert int(str(sampling["max_tokens"])) > 5 * 100 * 2
    attributes.write_text("length: {words: [80, 100000]}")
    with pytest.raises(PromptTooLong, match="fewer words in --attributes"):
        make(tmp_path / "other", model, script, example=QA, attributes=attributes, count=4)


@pytest.mark.parametrize("right", [1.0, 0.5])
def test_values_are_exact_with_a_label_noise_check_and_its_fallback(tmp_path: Path, model: str, right: float) -> None:
    path = tmp_path / "attributes.yaml"
    path.write_text("topic: [a, b, c]\n")
    changes = FALLBACK | {"attributes": path, "count": 100}
    verified(tmp_path / "whole", model, writing(right, YES_NO), **changes)
    assert_exact(counts(tmp_path / "whole")["topic"], dict.fromkeys("abc", 1 / 3))
    for dies_after in (4, 11, None):
        with suppress(EngineError):
            client = ScriptedClient(writing(right, YES_NO), dies_after=dies_after, scorer=knowing)
            verified(tmp_path / "killed", model, client, **changes)
    assert train(tmp_path / "killed") == train(tmp_path / "whole")


@pytest.mark.parametrize(("values", "seed"), [(7, 0), (10, 1)])
def test_attributes_with_a_larger_count_need_few_requests(tmp_path: Path, model: str, values: int, seed: int) -> None:
    """A replay with another count draws other values than the log has; no request may stay counted as uncommitted."""
    path = tmp_path / "attributes.yaml"
    path.write_text(json.dumps({"topic": [f"t{n}" for n in range(values)]}))
    for count in (20, 100):
        client = ScriptedClient(answering(), shuffle=random.Random(seed))
        make(
            tmp_path / "run", model, client, example=NLI, labels=NLI_LABELS, attributes=path, count=count,
            concurrency=None, seed=seed,
        )  # fmt: skip
    assert len(client.history) < 40
    assert_exact(counts(tmp_path / "run")["topic"], {f"t{n}": 1 / values for n in range(values)})


def test_another_file_of_attributes_is_another_run(tmp_path: Path, model: str, attributes: Path) -> None:
    make(tmp_path / "run", model, of_any_length, example=QA, attributes=attributes, count=10)
    moved = attributes.rename(tmp_path / "moved.yaml")
    moved.write_text(f"# the same\n{FILE}")
    make(tmp_path / "run", model, of_any_length, example=QA, attributes=moved, count=10)
    moved.write_text(FILE.replace("sport", "golf"))
    with pytest.raises(RunMismatch, match="was made with another --attributes"):
        make(tmp_path / "run", model, of_any_length, example=QA, attributes=moved, count=10)


def test_exports_have_the_values_as_columns(tmp_path: Path, model: str, attributes: Path) -> None:
    import pyarrow.parquet

    make(tmp_path / "run", model, of_any_length, example=QA, attributes=attributes, count=20)
    directory = RunDirectory(tmp_path / "run")
    expected = [
        values | {f"attributes.{name}": value for name, value in commit.attributes.items()}
        for commit in directory.commits()
        for values in commit.accepted
    ]
    table = pyarrow.parquet.read_table(exported(directory, "parquet", with_attributes=True))
    assert table.to_pylist() == expected
    rows = exported(directory, "jsonl", with_attributes=True).read_text().splitlines()
    assert list(map(json.loads, rows)) == expected
    assert "attributes" not in exported(directory, "jsonl").read_text()
    with pytest.raises(UsageError, match="--with-attributes: choose a --layout of jsonl, hf, parquet, csv"):
        export(directory, "chat", with_attributes=True)


def test_commands_show_the_values(tmp_path: Path, model: str, attributes: Path) -> None:
    (tmp_path / "qa.json").write_text(json.dumps(NLI))
    attributes.write_text('topic: [sport, "[bold red]<b>\\u202e"]\n')
    changes = ["--example", tmp_path / "qa.json", "--model", model, "--attributes", attributes, "--count", 10]
    run_dir = tmp_path / "run"
    assert "sport" in run("create", *changes, "--run-dir", run_dir, "--dry-run").out
    assert run("create", *changes, "--run-dir", run_dir).code == 0
    shown = run("show", run_dir).out
    assert re.search(r"attributes +topic \(sport: 5, \[bold red\]<b>.: 5\)", shown)
    assert "\u202e" not in shown
    card = (run_dir / "README.md").read_text()
    assert "| topic | sport | 5 |" in re.sub(" +", " ", card)
    assert "<b>" not in card
    (tmp_path / "config.yaml").write_text(f"attributes: {attributes}\nexample: {tmp_path / 'qa.json'}\n")
    ended = run("preview", "--config", tmp_path / "config.yaml", "--model", model, "--json")
    assert len(ended.out.splitlines()) == 5
    assert "attributes" not in ended.out
    shown = run("preview", "--config", tmp_path / "config.yaml", "--model", model).out
    assert re.search(r"attributes.topic +sport", shown)
    ended = run("create", *changes, "--run-dir", tmp_path / "paper", "--recipe", "paper")
    assert "--attributes: --recipe paper has no such step" in ended.err
    assert ended.code == 2


def proposing(*texts: str) -> ScriptedClient:
    """A client whose answers are these, in order."""
    return ScriptedClient(lambda request: Completion(request.id, texts[request.id], "stop", 1, 1))


PROPOSED = [
    {"dimension": " Topic: ", "values": ["sport", "Sport", "cats and\ndogs", "yes", "x" * 90, "]},{", "...", "a\x07"]},
    {"dimension": "label", "values": ["entailment", "neutral"]},
    {"dimension": "topic", "values": ["a", "b"]},
    {"dimension": "tone", "values": ["angry"]},
]


def suggested(client: ScriptedClient, model: str) -> str:
    changes = {"example": NLI, "labels": NLI_LABELS, "count": 1, "run_dir": Path("unused"), "verify": "off"}
    config = CreateConfig.of(**changes, model=model, decontaminate=())
    return suggest_attributes(config, no_notify, lambda *_: client)


def test_proposed_dimensions_are_a_file_of_attributes(tmp_path: Path, model: str) -> None:
    client = proposing("no JSON", json.dumps(PROPOSED))
    path = tmp_path / "proposed.yaml"
    path.write_text(suggested(client, model))
    [topic] = read_attributes(path)
    assert (topic.name, list(topic.shares)) == ("Topic", ["Sport", "cats and dogs", "yes"])
    assert json.dumps(NLI["premise"]) in client.history[0].messages[-1]["content"]
    assert client.closed


def test_a_model_that_proposes_nothing_is_an_error(model: str) -> None:
    with pytest.raises(RunError, match=r"proposed no usable dimensions in 3 attempts .* try another --model"):
        suggested(proposing("[]", "1", json.dumps(PROPOSED[1:2])), model)


def test_a_proposal_is_a_file_of_attributes(tmp_path: Path, model: str) -> None:
    (tmp_path / "nli.json").write_text(json.dumps(NLI))
    ended = run("attributes", "suggest", "--example", tmp_path / "nli.json", "--model", model)
    assert ended.out.startswith("# Proposed by ")
    (tmp_path / "proposed.yaml").write_text(ended.out)
    assert read_attributes(tmp_path / "proposed.yaml")


def test_attributes_need_no_example(tmp_path: Path, model: str, attributes: Path) -> None:
    attributes.write_text("topic: [sport, law]\n")
    changes: dict[str, Any] = {"example": None, "instruction": "Mails to a shop.", "inputs": "subject,body"}
    changes |= {"labels": {"kind": "bug,other"}, "attributes": attributes, "count": 20}
    client = ScriptedClient(answering())
    make(tmp_path / "run", model, client, **changes)
    assert counts(tmp_path / "run")["topic"] == {"sport": 10, "law": 10}
    assert re.search(r" All of them have topic: (sport|law)\.", client.history[0].messages[-1]["content"])
    config = CreateConfig.of(**changes | {"count": 1}, run_dir=Path("unused"), model=model, decontaminate=())
    asked = proposing(json.dumps(PROPOSED))
    assert "Topic:" in suggest_attributes(config, no_notify, lambda *_: asked)
    assert "Mails to a shop." in asked.history[0].messages[-1]["content"]


def test_a_given_context_does_not_count_as_words(tmp_path: Path, model: str, attributes: Path) -> None:
    (tmp_path / "doc.md").write_text(passage(1))
    attributes.write_text("length: {words: [2, 3]}\ntopic: [sport, law]\n")
    client = ScriptedClient(answering())
    example = {"question": "Is it open?", "context": "The museum is open on Sundays.", "label": "yes"}
    changes: dict[str, Any] = {"example": example, "corpus": (str(tmp_path / "doc.md"),), "count": 10}
    make(tmp_path / "run", model, client, attributes=attributes, **changes)
    asked = client.history[0].messages[-1]["content"]
    assert re.search(r"about text 2, but with length: 2 to 3 words in question; topic: (sport|law), and", asked)
    assert counts(tmp_path / "run")["topic"] == {"sport": 5, "law": 5}
