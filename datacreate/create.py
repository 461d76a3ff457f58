"""The generation loop: choose parents, request examples, validate, log and commit them.

`create` prepares a run and `_Session.generate` is the loop. Completions arrive in any order and are committed in the
order of their requests. Every commit is logged, so that the same call resumes after any interruption.
"""

from __future__ import annotations

import gc
import platform
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from datacreate.engines.factory import check_engine
from datacreate.engines.request import ServerTest
from datacreate.engines.self_test import run_schema_test, scoring_test
from datacreate.engines.settings import ENGINES
from datacreate.errors import DatacreateError, LockLost, LogDamaged, NoProgress, Stopped, StorageError
from datacreate.filters.filter import FilterInputs
from datacreate.filters.registry import make_filters
from datacreate.formats.example import Example
from datacreate.formats.response_schema import build_response_schema
from datacreate.hardware import installed_version
from datacreate.locking import FolderLock
from datacreate.messages import SilentProgress
from datacreate.pipeline import Pipeline
from datacreate.plan import RunPlan, make_plan, read_inputs
from datacreate.prompts.generation import chat_prompt
from datacreate.prompts.label_scoring import scoring_system_message
from datacreate.run_models import (
    EngineFactory,
    Engines,
    RunModels,
    describe_recipe,
    engines_of,
    models_of,
    needs_embedder,
)
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import ComputeMetrics, RunDirectory, StoredConfig
from datacreate.runs.log import Commit, LogWriter, SessionStart, first_checksum
from datacreate.runs.summary import RunStats
from datacreate.selection.embeddings import Embedder, SentenceEmbedder
from datacreate.selection.passed_vectors import PassedVectors
from datacreate.signals import Signals, caught_signals, deferred
from datacreate.state import RunState

_MAX_FAILED_REQUESTS = 64
"""A run fails after so many requests in a row without an accepted example, beside those that can be in flight."""

_POLL_SECONDS = 0.5

_LOGGED_VERSIONS = [
    "datacreate",
    *(package for engine in ENGINES.values() for package in engine.packages),
    *("xgrammar", "torch", "transformers", "sentence-transformers"),
]


class RunProgress(Protocol):
    """Receives the progress of a run."""

    def notify(self, text: str) -> None:
        """A message for the user."""

    def update(self, stats: RunStats, count: int, ahead: int, tokens_ahead: int) -> None:
        """The statistics at the start, and after every poll of the engines.

        `ahead`, `tokens_ahead`: examples and tokens of completions that are not committed yet.
        """


def create(
    config: CreateConfig,
    *,
    progress: RunProgress | None = None,
    engine_factory: EngineFactory | None = None,
    embedder: Embedder | None = None,
    compute_metrics: ComputeMetrics | None = None,
) -> dict[str, Any]:
    """Make the training set of `config`, or resume making it; returns the summary.

    `embedder` replaces the embedding model. Raises what `read_inputs` and `make_plan` raise, and: CheckpointError if a
    model is not downloaded, RunMismatch if the directory has another run, RunLocked if another process writes it,
    LogDamaged if its log is, EngineError if a server fails, NoProgress if the model writes nothing usable. The same
    call resumes after ServersUnavailable, Stopped (SIGINT or SIGTERM), LockLost (another process has taken over the
    directory) and StorageError (the disk is full).
    """
    # Check what needs no server (a dry run ends here), and find the checkpoints.
    progress = progress or SilentProgress()
    directory = RunDirectory(config.run_dir)
    if engine_factory is None and not config.uses_running_servers:
        check_engine(config.engine, progress.notify)
    inputs = read_inputs(config, directory)
    config = inputs.config
    embeds = needs_embedder(config)
    models = models_of(config, inputs.verify, embeds and embedder is None, progress.notify)
    progress.notify(describe_recipe(config, inputs.verify, inputs.inferred.format, models))
    for note in inputs.inferred.notes:
        progress.notify(note)
    with ExitStack() as stack:
        signals = stack.enter_context(caught_signals())
        lock = stack.enter_context(directory.locked(progress.notify))
        stored = directory.read_config() if directory.exists else None  # maybe changed before the lock
        inputs = replace(inputs, stored=stored)
        engines = stack.enter_context(engines_of(models, config, directory, engine_factory, progress.notify))

        # Decide everything else; an existing run must have been made with the same settings.
        plan = make_plan(inputs, engines)
        if plan.warning:
            progress.notify(plan.warning)
        run_config = _run_config(stored, plan, config.count, engines)

        if stored and directory.is_finished(config.count):
            stats = directory.stats()
            progress.notify(f"resuming from {stats.accepted} accepted examples")
            if plan.passages:
                plan.passages.save(directory.passages_path)
            directory.write_config(run_config)
            return directory.write_results(run_config, stats, lock, compute_metrics, progress.notify)

        # Restore the state from the commits of earlier sessions.
        vectors = None
        if embeds:
            vectors = _open_vectors(plan, models, embedder, directory.vectors_path, progress)
        filters = make_filters(plan.spec.filters, FilterInputs(inputs.decontamination_sets, vectors))
        state = RunState(plan, config.count, filters, vectors)
        session = _Session(state, directory, lock, run_config, progress, compute_metrics)
        if stored:
            session.replay()

        # Start the engines; the directory is written only after they have passed their checks.
        if not state.finished:
            for each in filters:
                each.prepare(progress.notify)
            system = scoring_system_message(plan.spec.instruction)
            scoring_tests = [scoring_test(system)] if plan.spec.verification else []
            engines.start(progress.notify, [_schema_test(plan)], scoring_tests)
        lock.check()
        if plan.passages:
            plan.passages.save(directory.passages_path)
        directory.write_config(run_config)

        # Generate.
        if not state.finished:
            try:
                session.generate(engines, signals)
            except StorageError:  # the last commit may not be in the log
                raise
            except DatacreateError:
                with suppress(StorageError, LockLost):
                    session.save()
                raise
        return session.save()


@dataclass
class _Session:
    """One session of a run."""

    state: RunState
    directory: RunDirectory
    lock: FolderLock
    config: StoredConfig
    progress: RunProgress
    compute_metrics: ComputeMetrics | None
    log: LogWriter | None = None

    def __post_init__(self) -> None:
        self.checksum = first_checksum(self.config.run_id)  # of the last line of the log

    def generate(self, engines: Engines, signals: Signals) -> None:
        """Request, verify, judge and commit until the count is reached."""
        state, noise_check = self.state, self.state.stats.label_noise_check
        # Requests already in flight do not use the latest commit; allow for them.
        max_failed_requests = _MAX_FAILED_REQUESTS + self.config.spec.max_in_flight
        pipeline = Pipeline(state, engines)
        with ExitStack() as stack:
            stack.enter_context(deferred())
            self.lock.check()
            self.log = log = LogWriter(self.directory.log_path, self.checksum)
            stack.callback(log.close)
            start = SessionStart(round(time.time(), 3), _environment())
            log.write([start], state.apply(start))
            self.progress.update(state.stats, self.config.count, *pipeline.uncommitted)

            def apply(commit: Commit) -> None:
                undecided = noise_check is not None and not noise_check.decided
                parents = state.apply(commit)
                if noise_check and undecided and noise_check.decided:
                    self.progress.notify(noise_check.result)
                self.lock.check()  # just before writing, which only one process may do
                log.write([commit], parents)

            def release() -> None:
                while not state.finished and (commit := state.acceptance.release()) is not None:
                    apply(commit)

            release()  # an earlier session may have ended just after the label-noise check had decided
            while not state.finished:
                if signals.received:
                    done = f"{state.stats.accepted} of {self.config.count} examples"
                    raise Stopped(f"stopped by a signal after {done}; run the same command to resume")
                self.lock.check()
                log.sync()
                pipeline.submit()
                pipeline.poll(_POLL_SECONDS)
                while not state.finished and (parsed := pipeline.next_completed()) is not None:
                    apply(state.judge(parsed))
                    release()
                    if state.stats.consecutive_failures >= max_failed_requests and not state.finished:
                        raise NoProgress(self._no_progress_message())
                self.progress.update(state.stats, self.config.count, *pipeline.uncommitted)
            pipeline.abort()

    def replay(self) -> None:
        """Apply the commits of earlier sessions."""
        gc.disable()  # the state only grows: each collection would take longer, and find nothing
        try:
            for line in self.directory.log(self.config.run_id):
                self.state.replay(line, str(self.directory.log_path))
                self.checksum = line.checksum
        finally:
            gc.enable()
        if self.state.stats.requests:
            self.progress.notify(f"resuming from {self.state.stats.accepted} accepted examples")

    def save(self) -> dict[str, Any]:
        """Write train.jsonl and the other results; returns the summary.

        Raises LogDamaged if another program changed the log during this session.
        """
        directory = self.directory
        self.lock.check()
        if self.log and not self.log.is_unchanged:
            raise LogDamaged(
                f"{directory.log_path}: deleted or changed by another program during this run; restore it from a "
                f"copy, or start again in another --run-dir ({directory.train_path.name} is not complete without it)"
            )
        return directory.write_results(
            self.config, self.state.stats, self.lock, self.compute_metrics, self.progress.notify
        )

    def _no_progress_message(self) -> str:
        stats = self.state.stats
        reasons = ", ".join(f"{reason} {n}" for reason, n in stats.rejects.most_common()) or "none"
        samples = " | ".join(f"{reject.reason}: {reject.text[:100]!r}" for reject in stats.last_rejects)
        return (
            f"no example accepted in {stats.consecutive_failures} requests in a row ({stats.accepted} of "
            f"{self.config.count} so far); rejects: {reasons}; the last ones: {samples}; try another model or "
            "example, or a larger --max-tokens"
        )


def _run_config(stored: StoredConfig | None, plan: RunPlan, count: int, engines: Engines) -> StoredConfig:
    if stored:
        return stored.model_copy(update={"count": count})
    generators = engines.models.generators
    licenses = [generator.preset.license for generator in generators if generator.preset]
    known = len(licenses) == len(generators)
    return StoredConfig(
        spec=plan.spec,
        count=count,
        license=", ".join(dict.fromkeys(licenses)) if known else None,
        engines=engines.settings,
        versions={name: version for name, version in _environment().items() if name != "host"},
    )


def _open_vectors(
    plan: RunPlan, models: RunModels, embedder: Embedder | None, path: Path, progress: RunProgress
) -> PassedVectors:
    """The vectors of the run, by the embedding model or by the `embedder` that replaces it."""
    if models.embedding_model:
        progress.notify(f"loading {models.embedding_model.name}")
        embedder = SentenceEmbedder(models.embedding_model.path)
    assert embedder, "a run that embeds has a model or this"
    texts = [plan.text_of(each) for each in plan.formatting_examples or (Example({}),)]
    return PassedVectors(embedder, path, texts)


def _schema_test(plan: RunPlan) -> ServerTest:
    """Whether the server accepts the schema of this run's requests, for one example."""
    labels = plan.encoding.format.labels if plan.spec.recipe != "paper" else None
    schema = build_response_schema(plan.encoding, 1, labels[:1] if labels else None)
    # The prompt is the one of the run, so that the server's prefix cache has it afterwards.
    shown = plan.formatting_examples[:1]
    prompt = chat_prompt(plan.encoding, shown, plan.spec.num_examples, plan.content_of(0, {}))
    max_tokens = plan.samplings[0].max_tokens // plan.spec.num_examples + 1
    return run_schema_test(prompt, schema, replace(plan.samplings[0], max_tokens=max_tokens))


def _environment() -> dict[str, str]:
    """The host and the versions of this session, for the log."""
    versions = {package: version for package in _LOGGED_VERSIONS if (version := installed_version(package))}
    return {"host": socket.gethostname(), "python": platform.python_version(), **versions}
