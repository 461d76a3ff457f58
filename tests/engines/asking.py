"""Runs that ask servers on loopback, and what must come of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datacreate.create import create
from datacreate.runs.config import CreateConfig
from tests.making import COMMONSENSE, examples
from tests.servers import Server

YES_NO = {"question": "Is the sea salty?", "label": "yes"}


class Notes:
    """A `Progress` that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.on_note: Callable[[str], object] = lambda _: None

    def notify(self, text: str) -> None:
        self.said.append(text)
        self.on_note(text)

    def update(self, *_: object) -> None: ...

    def has(self, *words: str) -> bool:
        """Whether one line has all these words."""
        return any(all(word in line for word in words) for line in self.said)


def make(run_dir: Path, *servers: Server | str, notes: Notes | None = None, **changes: Any) -> dict[str, Any]:
    """Run `create` with these servers; returns the summary."""
    urls = tuple(each.url if isinstance(each, Server) else each for each in servers)
    usual = {"example": COMMONSENSE, "count": 40, "max_num_seqs": 4, "verify": "off", "decontaminate": ()}
    config = CreateConfig.of(run_dir=run_dir, urls=urls, **usual | changes)
    return create(config, progress=notes or Notes())


def is_exact(run_dir: Path, count: int) -> None:
    questions = [example["question"] for example in examples(run_dir)]
    assert len(questions) == len(set(questions)) == count
