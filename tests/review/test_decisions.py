"""Decisions about the rows of a run, and what `create` makes of them."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datacreate.errors import DecisionRefused, EngineError, LogDamaged, RunError
from datacreate.review.session import Change
from datacreate.runs.directory import RunDirectory
from tests.corpus.test_runs import QA, questions, sources
from tests.corpus.texts import passage
from tests.review.reviews import LABELED, accept, edit, reject, review
from tests.support.faults import at, changes_of, contents, forked, killed
from tests.support.making import NLI, STRATEGIES, examples, make, train
from tests.support.scripted import ScriptedClient, answering
from tests.support.verifying import FALLBACK, YES_NO, knowing, verified, writing


def test_rejected_rows_are_replaced_and_edited_rows_change_in_place(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    before = examples(tmp_path)
    with review(tmp_path) as session:
        accept(session, 1)
        reject(session, 2)
        edit(session, 3, premise="A woman reads a letter.")
        assert examples(tmp_path) == before  # written at the end
    edited = {**before[2], "premise": "A woman reads a letter."}
    assert examples(tmp_path) == [before[0], edited, *before[3:]]
    summary = make(tmp_path, model, **LABELED)
    assert examples(tmp_path)[:29] == [before[0], edited, *before[3:]]
    assert before[1] not in examples(tmp_path)
    assert set(Counter(row["label"] for row in examples(tmp_path)).values()) == {10}
    assert (summary["accepted"], summary["finished"]) == (30, True)
    counts = {"decisions": 3, "reviewed": 3, "accepted": 1, "edited": 1, "rejected": 1}
    assert counts.items() <= summary["review"].items()
    assert summary["review"]["reasons"] == {"wrong answer": 1}
    assert "People decided about 3 rows: 1 accepted, 1 edited, 1 rejected" in (tmp_path / "README.md").read_text()


def test_rejected_rows_are_shown_beside_no_parent(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED, shots=4)
    before = examples(tmp_path)
    with review(tmp_path) as session:
        for number in range(1, 13):
            reject(session, number)
        edit(session, 13, premise="A woman reads a letter.")
    client = ScriptedClient(answering())
    make(tmp_path, model, client, **{**LABELED, "count": 90}, shots=4)
    prompts = [request.messages[-1]["content"].split("\n")[1] for request in client.history]
    shown = {json.dumps(row) for prompt in prompts for row in json.loads(prompt)[:-1]}
    written = [json.dumps([row["label"], row["premise"], row["hypothesis"]]) for row in before]
    assert not shown & {*written[:13]}
    assert shown & {*written[13:]}
    assert any("A woman reads a letter." in row for row in shown)


def test_readers_of_the_run_see_the_decisions(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    with review(tmp_path) as session:
        reject(session, 4)
        edit(session, 5, hypothesis="Somebody is tired.")
    directory = RunDirectory(tmp_path)
    assert list(directory.examples()) == examples(tmp_path)
    assert directory.stats().accepted == directory.summary()["accepted"] == 29
    assert json.loads(directory.summary_path.read_text()) == directory.summary()
    assert not directory.summary()["finished"]
    assert len(list(directory.verifier_probabilities())) == len(list(directory.families())) == 29


def test_the_last_decision_about_a_row_counts(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    whole = train(tmp_path)
    with review(tmp_path) as session:
        edit(session, 1, premise="Nobody is here.")
        reject(session, 1)
        reject(session, 2)
        accept(session, 2)
        edit(session, 1, **session.rows[0].commit.accepted[0])
    assert train(tmp_path) == whole
    summary = make(tmp_path, model, **LABELED)
    assert train(tmp_path) == whole
    assert {"accepted": 1, "edited": 1, "rejected": 0}.items() <= summary["review"].items()


def test_a_row_whose_place_is_taken_does_not_come_back(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    with review(tmp_path) as session:
        reject(session, 2)
    make(tmp_path, model, **LABELED)
    with (
        review(tmp_path) as session,
        pytest.raises(DecisionRefused, match="row 2: another row was written in its place"),
    ):
        accept(session, 2)


WRONG_EDITS: dict[str, tuple[dict[str, Any], str]] = {
    "format": ({"label": "perhaps"}, "row 1: schema violation"),
    "blank": ({"premise": " "}, "row 1: blank"),
    "nothing": ({}, "row 1: nothing is edited"),
    "the formatting example": (NLI, "row 1: copied example"),
    "control characters": ({"premise": "a\x1bb"}, "row 1: invalid characters"),
}


@pytest.mark.parametrize("name", WRONG_EDITS)
def test_edits_are_checked_like_the_rows_of_a_model(tmp_path: Path, model: str, name: str) -> None:
    fields, message = WRONG_EDITS[name]
    make(tmp_path, model, **LABELED)
    before = contents(tmp_path)
    with review(tmp_path) as session, pytest.raises(DecisionRefused, match=message):
        edit(session, 1, **fields)
    assert contents(tmp_path) == before


def test_edits_are_compared_with_all_other_rows_and_rejected_ones(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    other = examples(tmp_path)[6]
    texts = {"premise": other["premise"], "hypothesis": other["hypothesis"]}
    with review(tmp_path) as session:
        with pytest.raises(DecisionRefused, match="row 1: duplicate"):
            edit(session, 1, **texts)
        reject(session, 7)
        with pytest.raises(DecisionRefused, match=r"row 1: duplicate .repeats row 7"):
            edit(session, 1, **texts)
        first = session.rows[1].values
        edit(session, 2, premise=first["premise"] + " now")
        edit(session, 2, premise=first["premise"])  # it may repeat itself
    make(tmp_path, model, **LABELED)
    assert len(examples(tmp_path)) == 30


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_replacements_are_the_same_whether_create_was_killed_or_not(tmp_path: Path, model: str, strategy: str) -> None:
    run = {"count": 60, "strategy": strategy}
    make(tmp_path / "whole", model, **run)
    with review(tmp_path / "whole") as session:
        for number in range(1, 40):
            reject(session, number)
        edit(session, 50, question="What is heavier than air?")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    make(tmp_path / "whole", model, **run)
    for dies_after in (1, 2, 3, None):
        with suppress(EngineError):
            client = ScriptedClient(answering(), dies_after=dies_after, shuffle=random.Random(1))
            make(tmp_path / "killed", model, client, **run)
    assert train(tmp_path / "killed") == train(tmp_path / "whole")
    assert len(examples(tmp_path / "whole")) == 60


def test_rows_of_a_run_that_fell_back_to_pseudo_labels_are_replaced(tmp_path: Path, model: str) -> None:
    writer = writing(0.5, YES_NO)
    verified(tmp_path / "whole", model, writer, **FALLBACK)
    rows = examples(tmp_path / "whole")
    with review(tmp_path / "whole") as session:
        assert [row.values for row in session.rows] == rows
        for number in (1, 2, 3, 70):
            reject(session, number)
        with pytest.raises(DecisionRefused, match=r"row 5: duplicate .repeats row 3"):
            edit(session, 5, premise=rows[2]["premise"], hypothesis=rows[2]["hypothesis"])
        for number in range(10, 20):
            if rows[number - 1]["label"] == rows[69]["label"]:
                edit(session, number, premise=f"Text {number}.")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    verified(tmp_path / "whole", model, writer, **FALLBACK)
    with suppress(EngineError):
        client = ScriptedClient(writer, scorer=knowing, dies_after=1)
        verified(tmp_path / "killed", model, client, **FALLBACK)
    verified(tmp_path / "killed", model, writer, **FALLBACK)
    assert train(tmp_path / "killed") == train(tmp_path / "whole")
    assert set(Counter(row["label"] for row in examples(tmp_path / "whole")).values()) == {40}


def test_the_values_of_attributes_stay_exact(tmp_path: Path, model: str) -> None:
    path = tmp_path / "attributes.yaml"
    path.write_text("topic: [a, b, c]\nlength: {words: [2, 6]}\n")
    run = {**LABELED, "attributes": path}
    make(tmp_path / "run", model, **run)
    with review(tmp_path / "run") as session:
        for number in (1, 2, 3, 10, 20):
            reject(session, number)
        with pytest.raises(DecisionRefused, match=r"row 4: wrong length \(9 words, expected 2 to 6\)"):
            edit(session, 4, premise="One two three four five", hypothesis="six seven eight nine")
    assert make(tmp_path / "run", model, **run)["attributes"]["topic"] == {"a": 10, "b": 10, "c": 10}
    rows = RunDirectory(tmp_path / "run").examples(with_attributes=True)
    assert set(Counter(row["attributes.topic"] for row in rows).values()) == {10}


def test_the_sources_of_a_corpus_follow(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    for name in ("a", "b"):
        Path(f"docs/{name}.md").write_text("".join(f"# {n}\n\n{passage(ord(name) + n)}\n\n" for n in range(6)))
    run: dict[str, Any] = {"example": QA, "corpus": ("docs",), "count": 20}
    make(tmp_path / "run", model, questions, **run)
    with review(tmp_path / "run") as session:
        reject(session, 1)
        with pytest.raises(DecisionRefused, match="row 2: the passage is that of a document"):
            edit(session, 2, context=f"{session.rows[1].values['context']} More.")
        with pytest.raises(DecisionRefused, match="row 2: answer not in context"):
            edit(session, 2, answer="Nobody")
        copied = " ".join(session.rows[1].values["context"].split()[4:16])
        with pytest.raises(DecisionRefused, match=r"row 2: copied example \(a part of the passage\)"):
            edit(session, 2, question=copied)
        edit(session, 2, question="Which word is meant?")

    def in_step(run_dir: Path) -> bool:
        hashes = [hashlib.sha256(row["context"].encode()).hexdigest() for row in examples(run_dir)]
        return [source["sha256"] for source in sources(run_dir)] == hashes

    def work(run_dir: Path) -> int:
        with review(run_dir) as session:
            reject(session, 3)
        make(run_dir, model, questions, **run)
        return 0

    assert in_step(tmp_path / "run")
    for change in range(99):  # a kill leaves no sources, or the right ones
        copy = shutil.copytree(tmp_path / "run", tmp_path / f"killed-{change}")
        code = forked(lambda d=copy: work(d), at(change, killed))  # type: ignore[misc]
        assert not (copy / "sources.jsonl").exists() or in_step(copy)
        if code == 0:
            break
    assert change > 10
    assert (len(examples(copy)), in_step(copy)) == (20, True)
    (copy / "passages.jsonl").unlink()
    with pytest.raises(RunError, match=r"passages\.jsonl: missing or damaged"), review(copy) as session:
        reject(session, 4)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_decisions_and_creates_end_with_exactly_the_count(
    tmp_path_factory: pytest.TempPathFactory, model: str, data: st.DataObject
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    run = {**LABELED, "count": 11, "label_ratio": {"entailment": 0.5, "neutral": 0.3, "contradiction": 0.2}}
    labels = list(run["label_ratio"])
    make(run_dir, model, **run)
    rejected: dict[int, dict[str, Any]] = {}
    for _ in range(data.draw(st.integers(1, 3))):
        with review(run_dir) as session:
            for _ in range(data.draw(st.integers(0, 8))):
                row = data.draw(st.sampled_from(session.rows))
                verdict = data.draw(st.sampled_from(["accept", "reject", "edit"]))
                fields = data.draw(
                    st.fixed_dictionaries({}, optional={"label": st.sampled_from(labels), "premise": st.text()})
                )
                with suppress(DecisionRefused):
                    values = {**row.values, **fields} if verdict == "edit" else None
                    session.decide(Change(row, verdict, "no", values))  # type: ignore[arg-type]
            rejected = {row.number: row.values for row in session.rows if not row.in_set}
            expected = [row.values for row in session.rows if row.in_set]
        assert examples(run_dir) == expected
        if data.draw(st.booleans()):
            make(run_dir, model, **run)
            assert len(examples(run_dir)) == 11
    summary = make(run_dir, model, **run)
    rows = examples(run_dir)
    assert len(rows) == summary["accepted"] == 11
    assert not [row for row in rejected.values() if row in rows]
    counts = Counter(row["label"] for row in rows)
    assert counts == summary["labels"]
    assert all(abs(counts[label] - 11 * share) < 1 for label, share in run["label_ratio"].items())


# Kills and damage


def test_a_kill_at_any_change_of_a_file_loses_at_most_the_last_decision(tmp_path: Path, model: str) -> None:
    make(tmp_path / "made", model, **LABELED)

    def work(run_dir: Path) -> int:
        with review(run_dir) as session:
            for number in (3, 5):
                if session.rows[number - 1].decision is None:
                    reject(session, number)
        return 0

    shutil.copytree(tmp_path / "made", tmp_path / "whole")
    number = changes_of(lambda: work(tmp_path / "whole"))
    expected = train(tmp_path / "whole")
    make(tmp_path / "whole", model, **LABELED)
    for change in range(number):
        run_dir = shutil.copytree(tmp_path / "made", tmp_path / f"killed-{change}")
        assert forked(lambda d=run_dir: work(d), at(change, killed)) == 9  # type: ignore[misc]
        again = shutil.copytree(run_dir, tmp_path / f"again-{change}")
        work(again)
        assert train(again) == expected
        make(run_dir, model, **LABELED)  # without another review
        work(run_dir)
        make(run_dir, model, **LABELED)
        assert len(examples(run_dir)) == 30
        assert RunDirectory(run_dir).summary()["review"]["rejected"] == 2
        make(again, model, **LABELED)
        assert train(again) == train(tmp_path / "whole")


def test_missing_decisions_are_found(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    with review(tmp_path) as session:
        accept(session, 1)
        reject(session, 2)
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(LogDamaged, match=r"it has 1 decisions of reviewers, but .* say 2"):
        make(tmp_path, model, **LABELED)


def test_a_lost_row_is_found_although_others_were_rejected(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    with review(tmp_path) as session:
        for number in range(1, 8):
            reject(session, number)
    make(tmp_path, model, **LABELED)
    log, rows = tmp_path / "log.jsonl", examples(tmp_path)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(LogDamaged, match=r"it has 2\d examples, but .* say 30"):
        make(tmp_path, model, **LABELED)
    assert examples(tmp_path) == rows


def test_a_reviewed_row_that_is_changed_by_hand_is_never_lost(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    original = train(tmp_path).splitlines(keepends=True)
    with review(tmp_path) as session:
        edit(session, 3, premise="A woman reads a letter.")
        reject(session, 7)
    reviewed = train(tmp_path).splitlines(keepends=True)
    reverted = [*reviewed[:2], original[2], *reviewed[3:]]
    moved = [*reviewed[:2], reviewed[3], reviewed[2], *reviewed[4:]]
    restored = [*reviewed[:6], original[6], *reviewed[7:]]  # the rejected row in place of the next one
    for rows, line in ((reverted, 3), (moved, 3), (restored, 7)):
        (tmp_path / "train.jsonl").write_bytes(b"".join(rows))
        with pytest.raises(RunError, match=rf"train.jsonl was changed outside of datacreate \(line {line}\)"):
            make(tmp_path, model, **LABELED)
        assert train(tmp_path) == b"".join(rows)
    (tmp_path / "train.jsonl").write_bytes(b"".join(reviewed))
    make(tmp_path, model, **LABELED)
    assert len(examples(tmp_path)) == 30
