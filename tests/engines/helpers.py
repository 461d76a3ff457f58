"""Runs of `create` with servers on loopback, and progress that records messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datacreate.creation.loop import create
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import Completion, Request
from datacreate.messages import Progress
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from tests.support.making import COMMONSENSE, examples
from tests.support.servers import Server

YES_NO = {"question": "Is the sea salty?", "label": "yes"}

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}]


class Notes(Progress):
    """Records messages and calls functions of the test."""

    def __init__(self, on_commit: Callable[[], object] = lambda: None) -> None:
        self.messages: list[str] = []
        self.on_message: Callable[[str], object] = lambda _: None
        self._on_commit = on_commit

    def notify(self, text: str) -> None:
        self.messages.append(text)
        self.on_message(text)

    def update(self, *_: object) -> None:
        self._on_commit()

    def has(self, *words: str) -> bool:
        """Whether one message contains all these words."""
        return any(all(word in line for word in words) for line in self.messages)


def make(run_dir: Path, *servers: Server | str, notes: Notes | None = None, **changes: Any) -> dict[str, Any]:
    """Run `create` with these servers, and check that it makes the exact count; returns the summary."""
    urls = tuple(each.url if isinstance(each, Server) else each for each in servers)
    usual = {"example": COMMONSENSE, "count": 40, "max_num_seqs": 4, "verify": "off", "decontaminate": ()}
    settings = usual | changes
    summary = create(CreateConfig.of(run_dir=run_dir, url=urls, **settings), progress=notes or Notes())
    questions = [example["question"] for example in examples(run_dir)]
    assert len(questions) == len(set(questions)) == settings["count"]
    return summary


def answers(client: ModelClient, *requests: Request) -> list[Completion]:
    """The answers of a client that has started to these requests, in the order of the requests."""
    for request in requests:
        client.submit(request)
    found: dict[int, Completion] = {}
    while len(found) < len(requests):
        found |= {answer.request_id: answer for answer in client.poll(60.0)}
    return [found[request.id] for request in requests]


def failed_requests(run_dir: Path) -> int:
    """The number of requests that the log counts as failed."""
    commits = RunDirectory(run_dir).commits()
    return sum(reject.reason == "no_response" for commit in commits for reject in commit.rejects)
