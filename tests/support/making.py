"""Runs `create` with the scripted client, and reads the results."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from datacreate.creation.loop import create
from datacreate.locking import locked
from datacreate.messages import Notify, Progress, no_notify
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from datacreate.runs.export import export
from datacreate.runs.log import LogRecord, LogWriter
from tests.filters.texts import HashedWords
from tests.support.scripted import Script, ScriptedClient, answering

STRATEGIES = ["naive", "random", "diverse", "similar", "tree", "coverage"]

COMMONSENSE: dict[str, Any] = {
    "question": "Where would you put a wet umbrella when you come home?",
    "context": None,
    "options": ["stand", "bookshelf", "oven", "wallet", "aquarium"],
    "label": "stand",
}
NLI: dict[str, Any] = {"premise": "A man sleeps on a bench.", "hypothesis": "Somebody rests.", "label": "entailment"}
NLI_LABELS = {"label": "entailment,neutral,contradiction"}


def settings(run_dir: Path, model: str, **changes: Any) -> dict[str, Any]:
    """The default configuration of tests."""
    defaults = {"example": COMMONSENSE, "count": 25, "run_dir": run_dir, "model": model, "concurrency": 5}
    return defaults | {"num_chains": 5, "verify": "off"} | changes


def make(
    run_dir: Path,
    model: str,
    client: ScriptedClient | Script | None = None,
    embedder: HashedWords | None = None,
    notify: Notify = no_notify,
    **changes: Any,
) -> dict[str, Any]:
    """Run `create` with a scripted client; returns the summary."""
    scripted = client if isinstance(client, ScriptedClient) else ScriptedClient(client or answering())
    progress = Progress()
    progress.notify = notify  # type: ignore[method-assign]
    return create(
        CreateConfig.of(**settings(run_dir, model, **changes)),
        progress=progress,
        client_factory=lambda *_: scripted,
        embedder=embedder or HashedWords(),
    )


def shuffled(seed: int, slots: int = 4) -> ScriptedClient:
    """A client whose completions arrive in random order."""
    return ScriptedClient(answering(), slots=slots, shuffle=random.Random(seed))


def train(run_dir: Path) -> bytes:
    return (run_dir / "train.jsonl").read_bytes()


def examples(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in train(run_dir).split(b"\n")[:-1]]


def exported(run: RunDirectory, layout: str, target: Path | None = None, **options: Any) -> Path:
    """Export a run as one file or folder."""
    [path] = export(run, layout, target, **options)
    return path


def commits(run_dir: Path) -> list[Any]:
    return list(RunDirectory(run_dir).commits())


def append(log_path: Path, checksum: int, record: LogRecord, parents: Sequence[int] = ()) -> None:
    """Append a record to the log whose last line has this checksum."""
    with locked(log_path.parent) as lock, closing(LogWriter(log_path, checksum, lock)) as log:
        log.write([record], parents)
