"""Progress on stderr: what it says, how often, and when it is silent. The clock is the test's own."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest

from datacreate.cli.terminal import TerminalProgress
from datacreate.formats.reject import RejectReason
from datacreate.formats.task_format import load_format
from datacreate.runs.log import Commit
from datacreate.runs.stats import RunStats
from tests.runs.test_card import SPEC
from tests.support.servers import until

Said = pytest.CaptureFixture[str]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A run that is reported on; `at` is in seconds."""

    def __init__(self, count: int = 40, accepted: int = 0) -> None:
        self.clock = Clock()
        self.count = count
        self.stats = RunStats(SPEC, load_format("multiple_choice"), accepted=accepted, requests=accepted)
        self.stats.generated_tokens = 100 * accepted
        self.uncommitted = (0, 0)
        self.progress = TerminalProgress(clock=self.clock)

    def update(self, at: float = 0) -> None:
        self.clock.now = 1000 + at
        self.progress.update(self.stats, self.count, *self.uncommitted)

    def commit(self, at: float, accepted: int = 0, tokens: int = 0, **rejects: int) -> None:
        self.stats.requests += 1
        self.stats.accepted += accepted
        self.stats.generated_tokens += tokens
        self.stats.rejects.update({RejectReason(name): number for name, number in rejects.items()})
        self.update(at)


def lines(capsys: Said) -> list[str]:
    return capsys.readouterr().err.splitlines()


MANY = {"near_duplicate": 5, "truncated": 4, "copied_example": 3, "schema_violation": 2, "blank": 1}
MANY |= {"rejected_by_verifier": 1}


@pytest.mark.parametrize(
    ("count", "accepted", "commit", "line"),
    [
        (
            40,
            0,
            {"at": 66, "accepted": 28, "tokens": 66 * 54, "duplicate": 9, "copied_example": 4},
            "29 of 40 examples, 0.5/s, about 22 s left, 54 tokens/s; rejected: 9 duplicate, 4 copied example",
        ),
        (
            40,
            0,
            {"at": 22, "tokens": 110, "copied_example": 5},
            "1 of 40 examples, 22 s, 5.0 tokens/s; rejected: 5 copied example",
        ),
        (
            40,
            0,
            {"at": 19, **MANY},
            "1 of 40 examples, 19 s; rejected: 5 near duplicate, 4 truncated, 3 copied example, "
            "2 schema violation and 2 more",
        ),
        (40, 0, {"at": 20, "accepted": 38}, "39 of 40 examples, 3.8/s"),  # less than a second is not named
        (400, 0, {"at": 60, "accepted": 1}, "2 of 400 examples, 1.2/min, about 5.5 h left"),
        # A resumed run counts its own session only.
        (40, 30, {"at": 20, "accepted": 5, "tokens": 400}, "36 of 40 examples, 0.5/s, about 8 s left, 20 tokens/s"),
    ],
)
def test_rate_time_left_tokens_and_reasons_stand_in_one_line(
    capsys: Said, count: int, accepted: int, commit: dict[str, Any], line: str
) -> None:
    run = Run(count, accepted)
    run.update()
    run.commit(at=10, accepted=1)
    run.commit(**commit)
    first = f"{accepted} of {count} examples, 0 s"
    assert lines(capsys) == [first, f"{accepted + 1} of {count} examples, 10 s", line]


def test_the_time_left_is_right_for_requests_in_flight_at_once_that_are_committed_late(capsys: Said) -> None:
    """20 requests for 5 examples each, sent together: one is answered every 2 s from 60 s on; few are committed."""
    run = Run(count=100)
    run.update()
    for second in range(60, 100, 2):
        answered = 5 * (second - 58) // 2
        run.stats.accepted = answered // 3
        run.uncommitted = (answered - run.stats.accepted, 0)
        run.update(second)
    assert lines(capsys) == [
        "0 of 100 examples, 0 s",
        "1 of 100 examples (4 more are not decided yet), 60 s",
        "10 of 100 examples (20 more are not decided yet), 2.5/s, about 28 s left",
        "18 of 100 examples (37 more are not decided yet), 2.5/s, about 18 s left",
        "26 of 100 examples (54 more are not decided yet), 2.5/s, about 8 s left",
    ]


def test_of_undecided_examples_as_many_count_as_were_accepted_so_far(capsys: Said) -> None:
    run = Run(count=100)
    run.update()
    run.commit(at=10, accepted=9)
    run.uncommitted = (20, 0)
    run.commit(at=30, accepted=20, duplicate=30)
    assert lines(capsys)[-1].startswith("29 of 100 examples (20 more are not decided yet), 1.5/s, about 41 s left")


def test_the_time_left_is_right_if_the_verifier_accepts_few(capsys: Said) -> None:
    """20 examples arrive every 22 s and are scored for 2 s; 4 of them are accepted, so that 25 rounds are needed."""
    run = Run(count=100)
    run.update()
    for start in range(0, 198, 22):
        run.uncommitted = (20, 0)
        run.update(start + 20)
        run.uncommitted = (0, 0)
        run.commit(at=start + 22, accepted=4, rejected_by_verifier=16)
    told = [line.partition("; rejected")[0] for line in lines(capsys)]
    assert told[2:] == [  # the end is at 550 s
        "4 of 100 examples (20 more are not decided yet), 0.2/s, about 8 min left",
        "8 of 100 examples (20 more are not decided yet), 0.2/s, about 8 min left",
        "12 of 100 examples (20 more are not decided yet), 0.2/s, about 8 min left",
        "16 of 100 examples (20 more are not decided yet), 0.2/s, about 7 min left",
        "20 of 100 examples (20 more are not decided yet), 0.2/s, about 7 min left",
        "24 of 100 examples (20 more are not decided yet), 0.2/s, about 7 min left",
        "28 of 100 examples (20 more are not decided yet), 0.2/s, about 6 min left",
        "32 of 100 examples (20 more are not decided yet), 0.2/s, about 6 min left",
    ]


def test_examples_that_wait_for_the_label_noise_check_count_for_the_time_left(capsys: Said) -> None:
    run = Run()
    run.update()
    waiting = Commit(0, "0" * 16, 0, 1000.0, waiting=({"label": "yes"},) * 10)
    run.stats.verification.waiting.append(waiting)
    run.update(10)
    run.stats.verification.waiting.append(waiting)
    run.update(20)
    assert lines(capsys)[-1] == "0 of 40 examples, 1.0/s, about 20 s left; 20 wait for the label-noise check"


def test_lines_come_no_more_often_than_needed_and_with_the_last_example(capsys: Said) -> None:
    run = Run()
    run.update()
    for second in range(1, 21):
        run.commit(at=second, accepted=2, tokens=100)
    printed = lines(capsys)
    assert [line.partition(" of ")[0] for line in printed] == ["0", "18", "36", "40"]
    assert printed[-1] == "40 of 40 examples in 20 s, 2.0/s, 100 tokens/s"
    run.update(30)
    assert lines(capsys) == []


class Terminal(io.TextIOWrapper):
    """One that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def getvalue(self) -> str:
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    return shown


def test_on_a_terminal_one_line_changes_and_notes_and_the_last_line_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = terminal(monkeypatch)
    run = Run()
    with run.progress as progress:
        progress.notify("loading [b]qwen[/b]…")
        run.update(3)
        progress.notify("a note")
        run.commit(at=5, accepted=1)
        run.commit(at=61, accepted=28, tokens=58 * 54, duplicate=9, copied_example=4)
        until(lambda: "29 of 40" in shown.text)
        run.commit(at=80, accepted=11)
        until(lambda: "finishing" in shown.text)
    assert "loading [b]qwen[/b]…" in shown.text
    assert "\r\x1b[2Ka note\n" in shown.getvalue()  # the live line is removed first
    assert "29 of 40 examples, 0.5/s, about 22 s left, 54 tokens/s; rejected: 9 duplicate" in shown.text
    assert "40 of 40 examples in 77 s, 0.5/s, 41 tokens/s; rejected: 9 duplicate, 4" in shown.text
    assert shown.getvalue().endswith("\x1b[2K")  # the live line is gone in the end


def test_training_says_how_fast_it_is_and_what_is_left(capsys: Said) -> None:
    clock = Clock()
    progress = TerminalProgress(clock=clock)

    def step(at: float, *printed: Any) -> None:
        clock.now = 1000 + at
        progress.step(*printed)

    step(0, "seed 1", 1, 101, None)
    step(10, "seed 1", 21, 101, 0.25)
    step(50, "seed 1", 101, 101, 0.5)
    progress.notify("60 rows of creak (test)")
    step(62, "seed 2", 1, 101, None)
    assert lines(capsys) == [
        "seed 1: 1 of 101 steps, 0 s",
        "seed 1: 21 of 101 steps, 2.0/s, about 40 s left, best score 25.0",
        "seed 1: 101 of 101 steps in 50 s, 2.0/s, best score 50.0",
        "60 rows of creak (test)",
        "seed 2: 1 of 101 steps, 0 s",
    ]
