"""The run directory: config.json, log.jsonl, train.jsonl, summary.json, README.md.

Only one process writes it at a time. config.json, summary.json and README.md are replaced
whole; train.jsonl is derived from the log and made anew when a run is taken up again.
"""

from __future__ import annotations

import contextlib

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from datacreate.errors import RunError, RunLocked
from datacreate.runs.config import Identity
from datacreate.runs.log import Commit, read_log, storage_error
from datacreate.tasks.example import Json


@dataclass(frozen=True)
class RunConfig:
    """config.json: the identity, how many examples are asked for, and what made the run."""

    identity: Identity
    count: int


class RunDirectory:
    """The files of one run, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.json"
        self.log_path = path / "log.jsonl"
        self.train_path = path / "train.jsonl"
        self.summary_path = path / "summary.json"
        self.card_path = path / "README.md"
        self.engine_log_path = path / "engine.log"

    @property
    def exists(self) -> bool:
        return self.config_path.is_file()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for writing, making it if need be.

        Raises RunLocked, naming the holder, if another process has it; StorageError if it
        cannot be made; RunError if it holds files of something else.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.exists and any(p.name not in (".lock", ".holder") for p in self.path.iterdir()):
                raise RunError(f"{self.path} holds other files and no run; choose an empty or new --run-dir")
            lock = filelock.FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
        except filelock.Timeout:
            holder = (self.path / ".holder").read_text(encoding="utf-8", errors="replace").strip()
            raise RunLocked(f"{self.path} is being written by {holder}; wait for it, or take another --run-dir") from None
        except OSError as error:
            raise storage_error(self.path, error) from None
        with lock:
            with contextlib.suppress(OSError):
                (self.path / ".holder").write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
            try:
                yield
            finally:
                if not self.exists:  # the run never began: leave nothing behind
                    with contextlib.suppress(OSError):
                        for name in (".lock", ".holder"):
                            (self.path / name).unlink(missing_ok=True)
                        self.path.rmdir()

    def read_config(self) -> RunConfig:
        """config.json; RunError if it is not there or cannot be read."""
        if not self.exists:
            raise RunError(f"{self.path} is not a run directory (no config.json)")
        try:
            document = json.loads(self.config_path.read_text(encoding="utf-8"))
            return RunConfig(Identity(**document["identity"]), document["count"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.config_path}: damaged ({str(error).splitlines()[0]}); restore it from a copy") from None

    def write_config(self, config: RunConfig, made_by: str) -> None:
        document = {"count": config.count, "datacreate": made_by, "identity": config.identity.model_dump(mode="json")}
        self.replace(self.config_path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def replace(self, path: Path, text: str) -> None:
        """Write a file whole or not at all. StorageError if the disk does not take it."""
        part = path.with_name(path.name + ".part")
        try:
            with part.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise storage_error(path, error) from None

    def commits(self) -> Iterator[Commit]:
        """The committed requests in order."""
        if self.log_path.is_file():
            yield from (record for record in read_log(self.log_path) if isinstance(record, Commit))

    def examples(self) -> Iterator[dict[str, Json]]:
        """The accepted examples in order, from the log."""
        for commit in self.commits():
            yield from commit.accepted

    def read_summary(self) -> dict[str, Any]:
        """summary.json; RunError if the run has none yet."""
        try:
            summary: dict[str, Any] = json.loads(self.summary_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self.path} has no summary yet; finish the run with the command that began it") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.summary_path}: damaged ({error}); run the same create command again") from None
        return summary


def example_line(values: dict[str, Json]) -> str:
    """One line of train.jsonl: the fields in the order of the formatting example."""
    return json.dumps(values, ensure_ascii=False)


