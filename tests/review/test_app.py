"""The terminal program: each key, in a terminal of 80x24 characters; kills and signals in a real one."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from datacreate.errors import StorageError
from datacreate.review.app import ReviewApp
from datacreate.review.session import ReviewRow, ReviewSession, select_rows
from datacreate.runs.directory import RunDirectory
from datacreate.signals import Signals
from tests.review.reviews import LABELED, review
from tests.support.driver import MARKUP, marked
from tests.support.making import COMMONSENSE, examples, make
from tests.support.process import ROOT
from tests.support.verifying import LABELS, THREE_LABELS, guessing, verified, writing

Keys = Callable[[Pilot[None], ReviewApp], Awaitable[None]]


def play(session: ReviewSession, keys: Keys, rows: list[ReviewRow] | None = None) -> ReviewApp:
    """Start the program, and press keys."""
    app = ReviewApp(session, rows or select_rows(session.rows, session.format), Signals())

    async def run() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await keys(pilot, app)

    asyncio.run(run())
    return app


def screen(app: ReviewApp) -> str:
    """The text of all parts that are shown."""
    return "\n".join(str(part.render()) for part in app.screen.query(Static))


def number(app: ReviewApp) -> int:
    assert app.current
    return app.current.number


def test_each_key(tmp_path: Path, model: str) -> None:
    verified(tmp_path, model, writing(1.0, LABELS), guessing, **THREE_LABELS, count=30, verify="keep")
    before = examples(tmp_path)
    seen: dict[str, int] = {}

    async def keys(pilot: Pilot[None], app: ReviewApp) -> None:
        assert "30 to review" in screen(app)
        assert "verifier: entailment 0." in screen(app)
        assert "A man sleeps on a bench." in screen(app)  # of the parent
        seen["accept"] = number(app)
        await pilot.press("a")
        seen["reject"] = number(app)
        await pilot.press("r", "2", "enter")
        seen["own words"] = number(app)
        await pilot.press("r", *"bad", "enter")
        seen["not rejected"] = number(app)
        await pilot.press("r", "escape", "r", "enter")
        assert "Write a reason" in screen(app)
        await pilot.press("9", "enter")
        assert "a digit from 1 to 6" in screen(app)
        await pilot.press("escape", "s")
        seen["edit"] = number(app)
        await pilot.press("e")
        await pilot.press("x", "tab", "y", "ctrl+s")
        seen["not edited"] = number(app)
        await pilot.press("e", "z", "escape")
        assert number(app) == seen["not edited"]
        await pilot.press("e", "f2")
        assert "nothing is edited" in screen(app)
        await pilot.press("escape", "b")
        assert number(app) == seen["edit"]
        assert "decided: edit" in screen(app)
        await pilot.press("b", "b", "b")
        assert "decided: reject false statement" in screen(app)
        await pilot.press("a")
        await pilot.press(*"s" * 28)
        assert "No more rows here" in screen(app)
        await pilot.press("s")
        assert "26 to review" in screen(app)
        await pilot.press("pagedown", "down", "q")

    with review(tmp_path) as session:
        play(session, keys)
        verdicts = {row.number: row.decision.verdict for row in session.rows if row.decision}
    assert verdicts == {
        seen["accept"]: "accept",
        seen["reject"]: "accept",
        seen["own words"]: "reject",
        seen["edit"]: "edit",
    }
    old = before[seen["edit"] - 1]
    edited = {**old, "premise": "x" + old["premise"], "hypothesis": "y" + old["hypothesis"]}
    assert edited in examples(tmp_path)
    assert len(examples(tmp_path)) == 29


def test_options_and_other_values_are_edited_as_texts(tmp_path: Path, model: str) -> None:
    make(tmp_path, model)

    async def keys(pilot: Pilot[None], app: ReviewApp) -> None:
        assert "Where would you put" in screen(app)
        await pilot.press("e", "tab")  # to the options, one in each line
        await pilot.press("x", "ctrl+s")

    with review(tmp_path) as session:
        rows = select_rows(session.rows, session.format)
        first = next(row for row in rows if row.values["label"] != row.values["options"][0])
        options = list(first.values["options"])
        rows.sort(key=lambda row: row is not first)
        play(session, keys, rows)
        assert first.values["options"] == ["x" + options[0], *options[1:]]


def test_a_sample_keeps_its_order_and_a_second_review_asks_only_what_is_left(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    shown: list[int] = []

    async def two(pilot: Pilot[None], app: ReviewApp) -> None:
        for _ in range(2):
            shown.append(number(app))
            await pilot.press("a")
        await pilot.press("q")

    async def rest(pilot: Pilot[None], app: ReviewApp) -> None:
        while app.current:
            shown.append(number(app))
            await pilot.press("a")
        assert "No more rows here. q quits" in screen(app)

    for keys in (two, rest):
        with review(tmp_path) as session:
            sample = session.sample(5, 3)
            play(session, keys, sample)
    assert shown == [row.number for row in sample]
    assert RunDirectory(tmp_path).summary()["review"]["sample"]["interval"] == [0.5655, 1.0]


def test_text_of_a_model_is_no_markup_and_has_no_control_characters(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, marked, example={**COMMONSENSE, "context": None}, count=5)

    async def keys(pilot: Pilot[None], app: ReviewApp) -> None:
        text = screen(app)
        assert "[bold red]a[/]" in text
        assert "[link=x]y[/link]" in text
        assert not {"\x1b", "\u202e", "\u2028"} & set(text)
        await pilot.press("r", *"[red]no[/red]", "enter", "b")
        assert "reject [red]no[/red]" in screen(app)
        await pilot.press("e", "escape", "e", "ctrl+s")
        assert "nothing is edited" in screen(app)

    assert any("\u202e" in text for text in MARKUP[:1])
    with review(tmp_path) as session:
        play(session, keys)


def test_a_failure_is_kept_if_another_key_follows(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, model, **LABELED)

    def fails(_: object) -> None:
        raise StorageError("the disk is full")

    async def keys(pilot: Pilot[None], app: ReviewApp) -> None:
        await pilot.press("a", "q")

    with review(tmp_path) as session:
        monkeypatch.setattr(session, "decide", fails)
        assert str(play(session, keys).failure) == "the disk is full"


# A real terminal


class Terminal:
    """A command in a terminal of 80x24 characters."""

    def __init__(self, *words: object, **environment: str) -> None:
        self._master, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.driver", *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environment},
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        os.close(inside)
        self.output = b""

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Read what the command writes, until the condition holds."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, self.output[-2000:].decode("utf-8", "replace")
            self._read()

    def _read(self) -> None:
        if select.select([self._master], [], [], 0.05)[0]:
            try:
                self.output += os.read(self._master, 1 << 16)
            except OSError:  # the command has ended
                time.sleep(0.01)

    def end(self) -> int:
        while self.process.poll() is None:
            self._read()
        self._read()
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def terminal(*words: object, **environment: str) -> Iterator[Terminal]:
    started = Terminal(*words, **environment)
    try:
        yield started
    finally:
        started.close()


def decisions(run_dir: Path) -> int:
    return (run_dir / "log.jsonl").read_bytes().count(b'{"decision"')


def test_a_killed_review_loses_nothing_and_the_next_one_continues(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, **LABELED)
    with terminal("review", tmp_path) as shown:
        shown.read_until(lambda: b"30 to review" in shown.output)
        shown.press("ar1\r")
        shown.read_until(lambda: decisions(tmp_path) == 2)
        shown.process.send_signal(signal.SIGKILL)
        assert shown.end() == -signal.SIGKILL
    assert len(examples(tmp_path)) == 30
    with terminal("review", tmp_path) as shown:
        shown.read_until(lambda: b"28 to review" in shown.output)
        shown.press("q")
        assert shown.end() == 0
    assert len(examples(tmp_path)) == 29


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_program_and_the_terminal_is_as_before(
    tmp_path: Path, model: str, sent: signal.Signals
) -> None:
    make(tmp_path, model, **LABELED)
    with terminal("review", tmp_path) as shown:
        shown.read_until(lambda: b"30 to review" in shown.output)
        shown.press("a")
        shown.read_until(lambda: decisions(tmp_path) == 1)
        shown.process.send_signal(sent)
        assert shown.end() == 75
        assert b"\x1b[?1049l" in shown.output
        assert (
            shown.output.decode()
            .splitlines()[-1]
            .endswith("datacreate: stopped by a signal; run the same command to resume")
        )
    assert not (tmp_path / ".lock").exists()
