"""Which rows a review shows first, and what a random sample estimates."""

from __future__ import annotations

from pathlib import Path

from datacreate.review.session import select_rows
from datacreate.runs.directory import RunDirectory
from tests.review.reviews import LABELED, accept, edit, reject, review
from tests.support.making import NLI, make
from tests.support.verifying import LABELS, THREE_LABELS, guessing, verified, writing


def test_the_most_uncertain_rows_come_first_and_selections_combine(tmp_path: Path, model: str) -> None:
    verified(tmp_path, model, writing(1.0, LABELS), guessing, **THREE_LABELS, count=30, verify="keep")
    with review(tmp_path) as session:
        task_format = session.format
        rows = select_rows(session.rows, task_format)
        margins = [row.margin(task_format) for row in rows]
        assert margins == sorted(margins, key=lambda margin: margin or 0)
        flagged = select_rows(rows, task_format, flag="disagreement")
        assert flagged == [row for row, margin in zip(rows, margins, strict=True) if margin is not None and margin < 0]
        chosen = select_rows(rows, task_format, "neutral", "uncertain")
        assert 0 < len(chosen) < 10
        assert {row.values["label"] for row in chosen} == {"neutral"}
        parent = session.parent(rows[0])
        assert parent is not None
        assert set(parent) == set(NLI)


def test_a_random_sample_estimates_the_share_of_right_labels(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    with review(tmp_path) as session:
        drawn = session.sample(20, seed=1)
        for row in drawn[:12]:
            accept(session, row.number)
    with review(tmp_path) as session:
        again = session.sample(20, seed=1)
        assert [row.number for row in again] == [row.number for row in drawn]
        for row in again[12:17]:
            reject(session, row.number)
        accept(session, again[17].number)
        edit(session, again[18].number, premise="Another text.")
        wrong = again[19]
        labels = [row.values["label"] for row in again[12:17]]  # rejected, so that one more may have them
        edit(session, wrong.number, label=next(label for label in labels if label != wrong.values["label"]))
    sample = RunDirectory(tmp_path).summary()["review"]["sample"]
    assert (sample["decided"], sample["right"]) == (20, 14)
    assert sample["interval"] == [0.481, 0.8545]
    assert "of a random sample (drawn from 30) 14 had the right label" in (tmp_path / "README.md").read_text()


def test_a_label_that_is_edited_after_a_reject_was_wrong(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    with review(tmp_path) as session:
        first, second = (
            next(row for row in session.sample(30, seed=1) if row.values["label"] == label)
            for label in ("neutral", "entailment")
        )
        reject(session, first.number)
        reject(session, second.number)
        edit(session, first.number, label="entailment")
    sample = RunDirectory(tmp_path).summary()["review"]["sample"]
    assert (sample["decided"], sample["right"]) == (2, 0)
