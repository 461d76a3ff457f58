"""An instruction, with and without a formatting example."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from datacreate.errors import PromptTooLong, RunMismatch
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from tests.support.inprocess import run
from tests.support.making import STRATEGIES, commits, examples, make
from tests.support.scripted import ScriptedClient, answering

TASK = "Mails to the support desk of a web host.\nNo names."
FIELDS: dict[str, Any] = {
    "example": None,
    "instruction": TASK,
    "inputs": "subject,body",
    "answer": "topic",
    "labels": "topic=billing,bug,other",
}
WORDS = ["--inputs", "subject,body", "--answer", "topic", "--labels", "topic=billing,bug,other"]


def prompts(client: ScriptedClient) -> list[tuple[str, str]]:
    return [(str(r.messages[0]["content"]), str(r.messages[1]["content"])) for r in client.history]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_first_examples_are_written_from_the_fields_alone(tmp_path: Path, model: str, strategy: str) -> None:
    client = ScriptedClient(answering())
    make(tmp_path / "run", model, client, strategy=strategy, count=60, **FIELDS)
    rows = examples(tmp_path / "run")
    schema = RunDirectory(tmp_path / "run").read_config().spec.format
    for row in rows:
        jsonschema.validate(row, schema)
    assert Counter(row["topic"] for row in rows) == {"billing": 20, "bug": 20, "other": 20}
    written = {request.id: prompt for request, prompt in zip(client.history, prompts(client), strict=True)}
    for commit in commits(tmp_path / "run"):
        system, user = written[commit.request_number]
        assert system.endswith(TASK)
        assert user.startswith("Write a JSON array" if commit.parent_depth == 0 else "Here is a JSON array")
    depths = {commit.parent_depth for commit in commits(tmp_path / "run")}
    assert depths == {0} if strategy == "naive" else len(depths) > 1


def test_another_instruction_is_another_run(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=10, **FIELDS)
    with pytest.raises(RunMismatch, match="another --instruction: "):
        make(tmp_path / "run", model, count=10, **{**FIELDS, "instruction": "Mails to a shop."})
    (tmp_path / "task.txt").write_bytes(b"\xef\xbb\xbf" + TASK.replace("\n", "\r\n").encode() + b"\n\n")
    make(tmp_path / "run", model, count=15, **{**FIELDS, "instruction": f"@{tmp_path / 'task.txt'}"})


def test_an_instruction_beside_an_example_stands_in_the_system_message_and_the_card(tmp_path: Path, model: str) -> None:
    plain, instructed = ScriptedClient(answering()), ScriptedClient(answering())
    make(tmp_path / "plain", model, plain, count=10)
    make(tmp_path / "instructed", model, instructed, count=10, instruction=TASK)
    system, user = prompts(plain)[0]
    assert system == "You write data for training language models."
    assert prompts(instructed)[0] == (f"{system}\n\n{TASK}", user)
    card = (tmp_path / "instructed" / "README.md").read_text()
    assert "from the formatting example and the instruction below, with" in card


def test_a_format_file_takes_the_place_of_an_example(tmp_path: Path, model: str) -> None:
    document = {
        "type": "object",
        "properties": {"claim": {"type": "string", "description": "about birds"}, "year": {"type": "integer"}},
        "x-datacreate": {"roles": {"answer": "year"}},
    }
    (tmp_path / "claims.json").write_text(json.dumps(document))
    words = ["create", "--instruction", TASK, "--format", tmp_path / "claims.json", "--model", model]
    ended = run(*words, "--count", 12, "--run-dir", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert "format claims: inputs: claim; answer: year" in ended.err
    assert all(list(row) == ["claim", "year"] for row in examples(tmp_path / "run"))


def test_the_context_length_limits_the_examples_of_a_request(tmp_path: Path, model: str) -> None:
    client = ScriptedClient(answering())
    client.max_context = 1500
    make(tmp_path / "run", model, client, count=10, **FIELDS)
    assert 0 < RunDirectory(tmp_path / "run").read_config().spec.num_examples < 5
    client.max_context = 300
    with pytest.raises(PromptTooLong, match="--instruction"):
        make(tmp_path / "other", model, client, count=10, **FIELDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        *((words, "without an example give --instruction TEXT, and") for words in ([], ["--instruction", TASK], WORDS)),
        (["--instruction", "", *WORDS], "--instruction: empty"),
        (["--instruction", "latin.txt", *WORDS], "--instruction latin.txt: this is a file; did you mean @latin.txt?"),
        (["--instruction", "@missing.txt", *WORDS], "--instruction @missing.txt: no such file"),
        (["--instruction", "@.", *WORDS], "--instruction @.: cannot be read"),
        (["--instruction", "@empty.txt", *WORDS], "--instruction @empty.txt: empty"),
        (["--instruction", "@binary", *WORDS], "--instruction @binary: a binary file"),
        (["--instruction", "@latin.txt", *WORDS], "--instruction @latin.txt: not UTF-8"),
        (["--instruction", "@huge.txt", *WORDS], "--instruction @huge.txt: larger than 64 KiB"),
        (["--instruction", "@escape.txt", *WORDS], "--instruction @escape.txt: control characters"),
        (["--instruction", TASK, "--format", "function_call"], "come from an example; give --example FILE"),
        (["--instruction", TASK, "--recipe", "paper", *WORDS], "--instruction: --recipe paper has no such step"),
    ],
)
def test_wrong_inputs_are_one_line_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"empty.txt": b" \n", "binary": b"\x7fELF\0", "latin.txt": b"caf\xe9", "escape.txt": b"a\x1b[2J"}
    for name, content in {**files, "huge.txt": b"x" * 70_000}.items():
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    ended = run("create", *words, "--model", model, "--count", 5, "--run-dir", "run")
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_dry_run_says_what_was_understood(tmp_path: Path, model: str) -> None:
    words = ["create", "--instruction", TASK, *WORDS, "--model", model, "--count", 5]
    ended = run(*words, "--dry-run", "--run-dir", tmp_path / "run")
    assert "inputs: subject, body; answer: topic; labels: billing, bug, other" in ended.out
    assert "Mails to the support desk of a web host. No names." in ended.out


@pytest.mark.parametrize("text", [TASK, "@home is the name of a shop."])
def test_a_config_file_can_hold_the_instruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("task.txt").write_text(text)
    Path("mine.yaml").write_text('instruction: "@task.txt"\ninputs: [subject, body]\nlabels: {topic: "a,b"}\n')
    words = ["create", "--model", model, "--count", 5, "--dry-run", "--json"]
    plan = json.loads(run(*words, "--config", "mine.yaml").out)
    assert plan["plan"]["run_dir"] == "runs/task-best"
    Path("plan.yaml").write_text(json.dumps(plan))
    assert json.loads(run(*words, "--config", "plan.yaml").out)["config"] == plan["config"]
    assert CreateConfig.of(**FIELDS | {"instruction": f" {text}", "count": 1}).instruction == text


@pytest.mark.parametrize(
    ("changes", "name"), [({}, "instruction-best"), ({"instruction": "@tickets.txt"}, "tickets-best")]
)
def test_the_default_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tickets.txt").write_text(TASK)
    assert CreateConfig.of(**FIELDS | changes | {"count": 1}).run_dir == Path("runs", name)
    of_format = CreateConfig.of(instruction=TASK, format="my/claims.json", count=1)
    assert of_format.run_dir == Path("runs/claims-best")


def test_the_card_and_show_say_the_instruction(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=10, **{**FIELDS, "instruction": "Mails.\n```\n# No *heading*"})
    card = (tmp_path / "run" / "README.md").read_text()
    assert "from the instruction below" in card
    assert "````text\nMails.\n```\n# No *heading*\n````" in card
    shown = run("show", tmp_path / "run")
    assert "Mails. ``` # No *heading*" in shown.out
    assert run("show", tmp_path / "run", "--html", tmp_path / "run.html").code == 0
    page = (tmp_path / "run.html").read_text()
    assert ("Mails. ``` # No *heading*" in page, "Formatting example</h3>" in page) == (True, False)
    assert json.loads(run("show", tmp_path / "run", "--json").out)["spec"]["instruction"].startswith("Mails.")


def test_previewed_examples_can_be_saved_and_used(tmp_path: Path, model: str) -> None:
    saved, instructed = tmp_path / "first.jsonl", ["--instruction", TASK, *WORDS, "--model", model]
    words = ["preview", *instructed, "--save-examples", saved, "--json", "--count", 3]
    ended = run(*words)
    assert ended.code == 0, ended.err
    assert saved.read_text() == ended.out
    ended = run(*words)
    assert (ended.code, "give a new file in an existing folder" in ended.err) == (2, True)
    ended = run("preview", *instructed, "--save-examples", tmp_path / "first.csv")
    assert (ended.code, "must end in .jsonl" in ended.err) == (2, True)
    ended = run("create", "--example", saved, *instructed, "--count", 12, "--run-dir", tmp_path / "run")
    assert ended.code == 0, ended.err
    spec = RunDirectory(tmp_path / "run").read_config().spec
    assert [json.dumps(values) for values in spec.examples] == saved.read_text().splitlines()
    ended = run("preview", *instructed, "--save-examples", tmp_path / "no" / "first.jsonl")
    assert (ended.code, "give a new file in an existing folder" in ended.err) == (2, True)
    ended = run("preview", *instructed, "--save-examples", "/proc/first.jsonl", dies_after=0)
    assert (ended.code, "/proc/first.jsonl: cannot be written" in ended.err) == (2, True)  # before anything is made


def test_the_verifier_reads_the_instruction(tmp_path: Path, model: str) -> None:
    client = ScriptedClient(answering())
    make(tmp_path / "run", model, client, count=10, verify="keep", **FIELDS)
    systems = {str(request.messages[0]["content"]) for request in client.verified}
    how = "Answer with one of: billing, bug, other."
    assert systems == {f"You answer about data that was written for this task:\n\n{TASK}\n\n{how}"}
    plain = ScriptedClient(answering())
    make(
        tmp_path / "plain",
        model,
        plain,
        count=10,
        verify="keep",
        **FIELDS | {"example": {"subject": "Hi", "body": "My site is down.", "topic": "bug"}, "instruction": None},
    )
    assert {request.messages[0]["content"] for request in plain.verified} == {how}
