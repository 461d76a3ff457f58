"""The run directory: config.json, log.jsonl, train.jsonl, summary.json, README.md.

One process writes it at a time. The log grows; other files are replaced atomically, the results when a session ends.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_core import to_jsonable_python

from datacreate.corpus import about_passages
from datacreate.errors import LockLost, LogDamaged, RunError, RunMismatch, UsageError
from datacreate.files import TEMPORARY_PATTERN, atomic_replacement, replace_file, storage_error, sync_file, sync_path
from datacreate.filters.filter import DecontaminationSetSpec
from datacreate.formats.example import Json, parse_object
from datacreate.formats.task_format import TaskFormat, read_format
from datacreate.locking import LOCK_FILE, FolderLock, locked
from datacreate.messages import Notify, no_notify
from datacreate.metrics import Metrics
from datacreate.runs.attributes import attribute_field
from datacreate.runs.card import Passage, dataset_card, source_counts
from datacreate.runs.config import CreateConfig, RunSpec
from datacreate.runs.decisions import Decision
from datacreate.runs.log import Commit, LogLine, TrainFile, decision_lines, example_line, read_changes, read_log
from datacreate.runs.stats import RunStats, RunSummary
from datacreate.settings import FrozenModel, SettingsProblem, option_info
from datacreate.verification import Probabilities

_SCHEMA_VERSION = 5  # of the files in a run directory; one of another version is refused
_MAX_DIFFERENCE = 160  # characters of a setting that differs, with both values, in an error
_MAX_NAMES = 5  # of further settings that differ, in an error
_EXAMPLES, _DECISIONS = "examples", "decisions of reviewers"  # what summary.json and the log count

_GROUPS_OF_OPTIONS = ("", "sampling", "filters", "corpus", "verification")
"""Fields of `RunSpec` whose parts are options of `create`; "" are its own fields."""

_DECIDED_BY = {
    "compared_with": "--decontaminate", "verification": "--verify", "model_sha256": "--model", "mixture": "--model",
    "embedding_model_sha256": "--embedding-model",
}  # fmt: skip
"""Field of `RunSpec` -> the option that decides it."""

_ALLOWED_FILES = (
    TEMPORARY_PATTERN, LOCK_FILE, "vectors.f16", "passages.jsonl", "students", "parents.jsonl", "servers",
    "engine*.log", "verifier*.log",
)  # fmt: skip
"""Files that a directory may have before its run: of a failed start, of `improve`, or of servers that registered."""


class StoredConfig(FrozenModel):
    """The content of config.json."""

    run_id: str = Field(default_factory=lambda: secrets.token_hex(8))  # for the log's checksums
    count: int
    license: str | None  # of the generators, from their presets
    engines: dict[str, dict[str, Any]]  # name -> settings in the first session
    versions: dict[str, str]  # of packages, in the first session
    spec: RunSpec

    def check_same(self, requested: Mapping[str, Any], count: int, directory: Path) -> None:
        """Raise RunMismatch if `requested`, fields of the spec, differ, or if `count` is less than that of the run."""
        stored, wanted = self.spec.model_dump(mode="json"), to_jsonable_python(requested)
        differences: dict[str, str] = {}  # option or part of the settings -> its first difference
        for name in filter(wanted.__contains__, RunSpec.model_fields):
            parts = [_named_parts(name, spec[name]) for spec in (stored, wanted)]
            for option, difference in _differences(name, *parts):
                differences.setdefault(_DECIDED_BY.get(name, option), difference)
        if differences:
            _, *others = differences
            more = f" (also different: {', '.join(others[:_MAX_NAMES])})" if others else ""
            raise RunMismatch(
                f"{directory} was made with another {next(iter(differences.values()))}{more}; use the same settings, "
                "or another --run-dir"
            )
        if count < self.count:
            raise RunMismatch(
                f"{directory} was made with --count {self.count}, which cannot be reduced to {count}; "
                "use a larger --count, or another --run-dir"
            )

    @property
    def format(self) -> TaskFormat:
        task_format = read_format(self.spec.format)
        return about_passages(task_format) if self.spec.corpus else task_format


def _named_parts(field: str, value: Json) -> Json:
    """The value of a field of `RunSpec`; the parts of a list get names, so that an error can name one."""
    if field == "verification":
        return value or {"mode": "off"}
    if field == "examples":
        return {f"example {number}": each for number, each in enumerate(value, 1)}
    if field == "compared_with":
        parts: dict[str, Json] = {}
        for number, spec in enumerate(map(DecontaminationSetSpec.model_validate, value), 1):
            name = f"version of {spec.title}"
            parts[f"{name} (set {number})" if name in parts else name] = spec.digest[:12]
        return parts
    return value


def _differences(name: str, stored: Json, requested: Json) -> Iterator[tuple[str, str]]:
    """The innermost settings that differ: the name of each, and a text with both values if they are short."""
    # JSON texts, not ==: that takes 1 for true, and ignores the order of fields, which the model sees.
    if json.dumps(stored) == json.dumps(requested):
        return
    short_name = name.partition(".")[0]
    if isinstance(stored, dict) and isinstance(requested, dict):
        prefix = "" if name in ("examples", "compared_with") else f"{name}."
        keys = dict.fromkeys((*stored, *requested))
        parts = [part for key in keys for part in _differences(f"{prefix}{key}", stored.get(key), requested.get(key))]
        yield from parts or [(short_name, f"order of fields in {name}")]
        return
    group, _, leaf = name.rpartition(".")
    option = {"verification.mode": "verify", "verification.model": "verifier"}.get(name, leaf)
    is_field = option in CreateConfig.model_fields
    if group in _GROUPS_OF_OPTIONS and is_field and option_info(CreateConfig, option):
        name = short_name = CreateConfig.flags()[option]
    elif group.startswith("format"):
        name = f"format, which --format, --labels and similar options decide; {name}"
    values = f": {_shown(stored)} stored, {_shown(requested)} requested"
    yield short_name, name + (values if len(values) < _MAX_DIFFERENCE else "")


def _shown(value: Json) -> str:
    if value is None:
        return "none"
    return f'"{value}"' if isinstance(value, str) and value.isprintable() else repr(value)


ComputeMetrics = Callable[["RunDirectory"], Metrics]
"""`run_metrics.measure_run`: the metrics of a finished run, for the dataset card."""


class RunDirectory:
    """The paths of a run's files; reads its configuration and log, and writes its results."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.json"
        self.log_path = path / "log.jsonl"
        self.train_path = path / "train.jsonl"
        self.summary_path = path / "summary.json"
        self.card_path = path / "README.md"
        self.vectors_path = path / "vectors.f16"
        self.passages_path = path / "passages.jsonl"
        self.sources_path = path / "sources.jsonl"
        self.students_path = path / "students"  # of `improve`
        self.parents_path = path / "parents.jsonl"

    @property
    def exists(self) -> bool:
        return self.config_path.is_file()

    def owns(self, path: Path) -> bool:
        """Whether `path` is a file with rows or lines that belongs to this run."""
        own = (self.log_path, self.train_path, self.passages_path, self.sources_path, self.parents_path)
        return self.exists and path.resolve() in [each.resolve() for each in own]

    def check(self) -> None:
        """Raise UsageError if this cannot become a run directory, StorageError if it cannot be read."""
        try:
            existing = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        except OSError as error:
            raise storage_error(self.path, error) from None
        if not existing.is_dir():
            raise UsageError(f"{self.path}: a part of this path is a file; choose another --run-dir")
        if existing == self.path and not self.exists:
            for file in self.path.iterdir():
                if not any(fnmatch(file.name, pattern) for pattern in _ALLOWED_FILES):
                    raise UsageError(f"{self.path} has other files and no run; choose an empty or new --run-dir")

    @contextlib.contextmanager
    def locked(self, notify: Notify = no_notify) -> Iterator[FolderLock]:
        """Lock the directory for writing, and create it if needed; `notify` is called before a wait.

        Call `check` of the lock before each write. Raises RunLocked if another process has it, and what `check` raises.
        """
        self.check()
        with locked(self.path, notify) as lock:
            # A former holder of the lock that still runs then writes to the old files.
            growing = (self.log_path, self.vectors_path) if lock.taken_over else ()
            for path in growing:
                if path.is_file() and not path.is_symlink():
                    with atomic_replacement(path) as part:
                        shutil.copyfile(path, part)
            try:
                yield lock
            finally:
                if not self.exists:
                    with contextlib.suppress(LockLost):
                        lock.check()
                        self._clear()

    def _clear(self) -> None:
        """Remove the files that a failed start left, except engine logs with content."""
        with contextlib.suppress(OSError):
            self.vectors_path.unlink(missing_ok=True)
            self.passages_path.unlink(missing_ok=True)
            for log in self.path.glob("*.log"):
                if not log.stat().st_size:
                    log.unlink()

    def read_config(self) -> StoredConfig:
        """The content of config.json. UsageError without one; RunError if it is damaged or of another version."""
        if not self.exists:
            raise UsageError(
                f"{self.path}: not a run directory (it has no config.json); give one of `datacreate create`"
            )
        try:
            document: dict[str, Any] = parse_object(self.config_path.read_bytes(), is_example=False)
            if not {"datacreate", "schema_version"} & document.keys():
                raise UsageError(
                    f"{self.path}: not a run directory (its config.json is of another program); give another path"
                )
            _, version = document.pop("datacreate"), document.pop("schema_version", None)
            if version != _SCHEMA_VERSION:
                name = f"run format {version}" if isinstance(version, int) else "an unknown run format"
                raise RunError(
                    f"{self.path}: {name}, this datacreate reads {_SCHEMA_VERSION}; its rows are usable as a file: "
                    f"{self.train_path}; start again in another --run-dir"
                )
            return StoredConfig(**document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = SettingsProblem.first(error).key if isinstance(error, ValidationError) else str(error)
            raise RunError(f"{self.config_path}: damaged ({reason}); restore it from a copy") from None

    def write_config(self, config: StoredConfig) -> None:
        document = {"schema_version": _SCHEMA_VERSION, "datacreate": metadata.version("datacreate")}
        document |= config.model_dump(mode="json")
        replace_file(self.config_path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def log(self) -> Iterator[LogLine]:
        """The lines of the log; none if there is no log yet.

        Raises LogDamaged at the first wrong line, and at the end if train.jsonl or summary.json have more examples;
        RunError at the end if another program changed train.jsonl.
        """
        # Read first, and in the order in which they are written, since another process may be writing the run.
        expected = _reported_counts(self.summary_path)
        reported, reported_decisions = expected[_EXAMPLES], expected[_DECISIONS]
        config, train_file, counts = self.read_config(), TrainFile(self.train_path), Counter[str]()
        changed, numbers = dict[int, dict[str, Json] | None](), itertools.count(1)
        with contextlib.suppress(LogDamaged):  # raised below, where `read_log` comes to the line
            changed = read_changes(self.log_path, reported_decisions)
        for line in read_log(self.log_path, config.run_id, len(config.format.labels or ())):
            if isinstance(line.record, Commit):
                counts[_EXAMPLES] += len(line.record.accepted)
                train_file.take_in_order(line.record.reviewed(numbers, changed))
            elif isinstance(line.record, Decision):
                counts[_DECISIONS] += 1
                change = sum(sign for _, sign in line.record.changes)
                if counts[_DECISIONS] > reported_decisions:
                    # train.jsonl may be newer than the summary, and have rows that later decisions edited or restored.
                    train_file.take(example_line(line.record.added))
                    change = max(0, change)
                counts[_EXAMPLES] += change
            yield line
        if not 0 < reported == counts[_EXAMPLES]:  # train.jsonl may be newer than the summary
            expected[_EXAMPLES] = max(reported, train_file.rows)
        for name, count in expected.items():
            if counts[name] < count:
                raise LogDamaged(
                    f"{self.log_path}: it has {counts[name]} {name}, but {self.train_path.name} and "
                    f"{self.summary_path.name} say {count}; restore it from a copy, or remove these two to continue "
                    f"with {counts[name]}"
                )
        has_fewer_rows = counts[_DECISIONS] == reported_decisions and 0 < train_file.rows < reported
        wrong_line = train_file.wrong_line(may_repeat=not config.spec.filters.exact)
        if wrong_line or has_fewer_rows or train_file.rows > counts[_EXAMPLES]:
            where = f" (line {wrong_line})" if wrong_line else ""
            raise RunError(
                f"{self.train_path} was changed outside of datacreate{where}; change rows with `datacreate review`; to "
                "keep this version rename it, and the same `create` command writes the file from the log again"
            )

    def commits(self) -> Iterator[Commit]:
        """The committed requests in order, without the rows that reviewers rejected, and with their edits."""
        changed, numbers = read_changes(self.log_path), itertools.count(1)
        for line in self.log():
            if isinstance(line.record, Commit):
                yield line.record.reviewed(numbers, changed)

    def verifier_probabilities(self) -> Iterator[Probabilities | None]:
        """The calibrated probabilities of each accepted example's options or labels; None if they were not scored."""
        check = self.stats().verification.check
        for commit in self.commits():
            for _, scored in commit.scored_rows:
                yield check.calibrated(scored.probabilities) if scored.probabilities else None

    def is_finished(self, count: int) -> bool:
        """Whether summary.json reports `count` examples; the log also has them, or is damaged."""
        return _reported_counts(self.summary_path)[_EXAMPLES] >= count and self.is_up_to_date()

    def is_up_to_date(self) -> bool:
        """Whether train.jsonl and summary.json follow all decisions of reviewers; the log is not parsed."""
        return _reported_counts(self.summary_path)[_DECISIONS] == sum(1 for _ in decision_lines(self.log_path))

    def write_results(
        self,
        config: StoredConfig,
        stats: RunStats,
        lock: FolderLock,
        compute_metrics: ComputeMetrics | None,
        notify: Notify,
    ) -> RunSummary:
        """Write the results that follow from the log; returns the summary.

        The results are train.jsonl, as reviewers left the rows, sources.jsonl (with a corpus), summary.json and, if
        there are examples, the dataset card, with the metrics of a finished run. Raises StorageError, LockLost.
        """
        rows_of_passages = self._write_rows(config, lock)
        summary = stats.summary(config.count, config.license)
        replace_file(self.summary_path, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        if stats.accepted:
            metrics = None
            if compute_metrics and stats.accepted >= config.count:
                notify("measuring diversity and shortcuts, for the dataset card")
                metrics = compute_metrics(self)
                if metrics.near_warning:
                    notify(f"warning: {metrics.near_warning}")
            replace_file(self.card_path, dataset_card(config.spec, summary, metrics, source_counts(rows_of_passages)))
        return summary

    def _write_rows(self, config: StoredConfig, lock: FolderLock) -> Counter[Passage]:
        """Write train.jsonl and, with a corpus, sources.jsonl; returns how many rows are about each passage."""
        passages, rows_of_passages = None, Counter[Passage]()
        if config.spec.corpus:
            from datacreate.corpus.passages import open_stored_passages

            passages = open_stored_passages(self.passages_path, config.spec.seed, config.spec.corpus)
        with contextlib.ExitStack() as stack:
            paths = [self.sources_path, self.train_path] if passages else [self.train_path]  # replaced from the last on
            parts = [stack.enter_context(atomic_replacement(path)) for path in paths]
            *sources, rows = [stack.enter_context(part.open("xb")) for part in parts]
            for commit in self.commits():
                rows.write("".join(f"{line}\n" for line in commit.accepted_lines).encode("utf-8"))
                if passages and commit.accepted:
                    source = passages.of_request(commit.request_number).source
                    sources[0].write(f"{example_line(source)}\n".encode() * len(commit.accepted))
                    rows_of_passages[source["file"], source.get("row"), source["offset"]] += len(commit.accepted)
            for file in (*sources, rows):
                sync_file(file)
            sync_path(self.log_path)  # the last commits, if a killed session wrote them
            lock.check()
            self.sources_path.unlink(missing_ok=True)  # never next to other rows: all is on the disk now
        return rows_of_passages

    def examples(self, *, with_attributes: bool = False) -> Iterator[dict[str, Json]]:
        """The accepted examples, in order; `with_attributes` adds a field `attributes.NAME` for each dimension."""
        for commit in self.commits():
            attributes = {attribute_field(name): value for name, value in commit.attributes.items()}
            for values in commit.accepted:
                yield values | attributes if with_attributes else values

    def families(self) -> Iterator[int]:
        """The number of each accepted example's family, in order: of its passage, or of `Commit.family`."""
        numbers: dict[str | int, int] = {}
        corpus = self.read_config().spec.corpus
        for commit in self.commits():
            key = commit.request_number % corpus.passages if corpus else commit.family
            family = numbers.setdefault(key, len(numbers))
            yield from [family] * len(commit.accepted)

    def summary(self) -> RunSummary:
        config = self.read_config()
        return self.stats().summary(config.count, config.license)

    def stats(self) -> RunStats:
        """The statistics of the run, from its log."""
        config = self.read_config()
        stats = RunStats(config.spec, config.format)
        for line in self.log():
            stats.add_record(line.record)
        return stats


def _reported_counts(path: Path) -> dict[str, int]:
    """The counts in a summary; zeros without a readable one."""
    try:
        summary: RunSummary = json.loads(path.read_bytes()) if path.is_file() else {}
        review = summary.get("review") or {"decisions": 0}
        return {_EXAMPLES: int(summary["accepted"]), _DECISIONS: int(review["decisions"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return {_EXAMPLES: 0, _DECISIONS: 0}
