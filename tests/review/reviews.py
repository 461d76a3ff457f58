"""Shared by the tests of reviews."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datacreate.review.session import Change, ReviewSession, reviewing
from datacreate.runs.directory import RunDirectory
from tests.support.making import NLI, NLI_LABELS

LABELED: dict[str, Any] = {"example": NLI, "labels": NLI_LABELS, "count": 30}


@contextmanager
def review(run_dir: Path) -> Iterator[ReviewSession]:
    with reviewing(RunDirectory(run_dir)) as session:
        yield session


def accept(session: ReviewSession, number: int) -> None:
    session.decide(Change(session.rows[number - 1], "accept"))


def reject(session: ReviewSession, number: int, reason: str = "wrong answer") -> None:
    session.decide(Change(session.rows[number - 1], "reject", reason))


def edit(session: ReviewSession, number: int, **fields: Any) -> None:
    row = session.rows[number - 1]
    session.decide(Change(row, "edit", values={**row.values, **fields}))
