"""The run directory: config.json, log.jsonl, train.jsonl, summary.json, README.md.

Only one process writes it at a time. config.json, summary.json and README.md are replaced
whole; train.jsonl is derived from the log and made anew when a run is taken up again.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from datacreate.errors import RunError
from datacreate.files import replace_file, storage_error
from datacreate.filters.registry import filter_report
from datacreate.formats.example import Json
from datacreate.formats.task_format import TaskFormat, read_format
from datacreate.locking import LOCK_FILE, FolderLock
from datacreate.runs.config import RunSpec
from datacreate.runs.log import Commit, LogLine, read_log
from datacreate.runs.summary import RunStats
from datacreate.verification.scoring import Probabilities

_VECTORS = "vectors.f16"

_BEFORE_A_RUN = frozenset({"config.json.part", "servers", _VECTORS})
"""Files that a directory may hold in which no run began: what a kill or a failed start leaves, and
servers that came before the run."""

_LOGS = ("engine*.log", "verifier*.log")


@dataclass(frozen=True)
class RunConfig:
    """config.json: the identity, how many examples are asked for, and the id that seals the log."""

    spec: RunSpec
    count: int
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    license: str | None = None  # of the model that writes, as its preset says
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> how it was first loaded
    versions: dict[str, str] = field(default_factory=dict)  # of what it began with

    @property
    def format(self) -> TaskFormat:
        """The bound format of the run's examples."""
        document = self.spec.format
        return read_format(document, str(document.get("title", "format")))


class RunDirectory:
    """The files of one run, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.json"
        self.log_path = path / "log.jsonl"
        self.train_path = path / "train.jsonl"
        self.summary_path = path / "summary.json"
        self.card_path = path / "README.md"
        self.vectors_path = path / _VECTORS

    def log_of(self, engine: str) -> Path:
        """Where an engine's own words go: `engine`, `engine-2` and so on, or `verifier`; of several
        copies `engine.1` and so on."""
        return self.path / f"{engine}.log"

    @property
    def exists(self) -> bool:
        return self.config_path.is_file()

    @contextlib.contextmanager
    def locked(self, notify: Callable[[str], None] = lambda _: None) -> Iterator[FolderLock]:
        """Hold the directory for writing, and create it if needed; `notify` is called before a wait.

        Call `check` of the lock before each write. Raises RunLocked, naming the holder, if another process
        has it; StorageError if it cannot be created; RunError if it holds files of something else.
        """
        made: list[Path] = []  # folders that were not there before, from the inside out
        lock = FolderLock(self.path, notify)
        try:
            made += [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.exists and any(not before_a_run(path.name) for path in self.path.iterdir()):
                raise RunError(f"{self.path} holds other files and no run; choose an empty or new --run-dir")
            lock.acquire()
        except (FileExistsError, NotADirectoryError):
            raise RunError(
                f"{self.path}: there is a file where a folder should be; choose another --run-dir"
            ) from None
        except OSError as error:
            _remove(made)
            raise storage_error(self.path, error) from None
        try:
            if lock.after_silence:
                self._part_from_the_silent()
            yield lock
        finally:
            began = self.exists or lock.is_lost
            if not began:  # leave nothing behind
                self._clear()
            lock.release()
            if not began:
                _remove(made)

    def _part_from_the_silent(self) -> None:
        """Go on in files of our own: a holder that wakes up within a write finishes it in the old ones."""
        for path in (self.log_path, self.vectors_path):  # train.jsonl is made anew anyhow
            part = path.with_name(path.name + ".part")
            try:
                if path.is_file():
                    shutil.copyfile(path, part)
                    part.replace(path)
            except OSError as error:
                with contextlib.suppress(OSError):
                    part.unlink()
                raise storage_error(path, error) from None

    def _clear(self) -> None:
        with contextlib.suppress(OSError):
            for name in ("config.json.part", _VECTORS):
                (self.path / name).unlink(missing_ok=True)
            for log in self.path.glob("*.log"):
                if not log.stat().st_size:  # one that says something says why
                    log.unlink()

    def read_config(self) -> RunConfig:
        """config.json; RunError if it is not there or cannot be read."""
        if not self.exists:
            raise RunError(
                f"{self.path} is no run (no config.json in it); give the --run-dir of a `datacreate create`"
            )
        try:
            document = json.loads(self.config_path.read_text(encoding="utf-8"))
            return RunConfig(
                spec=RunSpec(**document["spec"]),
                count=int(document["count"]),
                run=str(document["run"]),
                license=document.get("license"),
                engines=document.get("engines", {}),
                versions=document.get("versions", {}),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.config_path}: damaged ({str(error).splitlines()[0]}); restore it from a copy"
            ) from None

    def write_config(self, config: RunConfig, made_by: str) -> None:
        spec = config.spec.model_dump(mode="json")
        document = {
            "run": config.run,
            "count": config.count,
            "datacreate": made_by,
            "license": config.license,
            "engines": config.engines,
            "versions": config.versions,
            "spec": spec,
        }
        replace_file(self.config_path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def log(self, run: str) -> Iterator[LogLine]:
        """The lines of the log of the run of that id; none if it has no log yet."""
        if self.log_path.is_file():
            yield from read_log(self.log_path, run)

    def commits(self) -> Iterator[Commit]:
        """The committed requests in order."""
        for line in self.log(self.read_config().run):
            if isinstance(line.record, Commit):
                yield line.record

    def verdicts(self) -> Iterator[Probabilities | None]:
        """What the verifier said of each accepted example, in order; None where it was not asked.

        Probabilities of the example's options in their order, or of the format's labels in theirs.
        """
        for commit in self.commits():
            said = [scored.probabilities for scored in commit.scored if scored.accepted]
            yield from said if commit.scored else [None] * len(commit.accepted)

    def accepted(self) -> int:
        """How many examples were accepted so far."""
        return sum(len(commit.accepted) for commit in self.commits())

    def examples(self) -> Iterator[dict[str, Json]]:
        """The accepted examples in order, from the log."""
        for commit in self.commits():
            yield from commit.accepted

    def summary(self) -> dict[str, Any]:
        """The figures so far, counted from the log: what summary.json holds of a run that has ended."""
        config = self.read_config()
        stats = RunStats.of(config.spec, config.format)
        for line in self.log(config.run):
            stats.take(line.record)
        return summary_of(config, stats)


def before_a_run(name: str) -> bool:
    """Whether a folder that holds a file of that name may still become a run's."""
    return name in _BEFORE_A_RUN or name == LOCK_FILE or any(fnmatch(name, log) for log in _LOGS)


def summary_of(config: RunConfig, stats: RunStats) -> dict[str, Any]:
    """The document of summary.json."""
    spec = config.spec
    drawn_from = {"benchmark": spec.benchmark} if spec.benchmark else {}
    compared = [each.model_dump() for each in spec.compared_with]
    return {
        "strategy": spec.strategy,
        "model": spec.model,
        "license": config.license,
        **drawn_from,
        **stats.summary(config.count),
        "filters": filter_report(spec.filters, stats.rejects),
        "compared_with": compared,
    }


def _remove(folders: list[Path]) -> None:
    """Remove folders, the innermost first, as far as they are empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
