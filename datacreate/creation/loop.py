"""The generation loop: choose parents, request examples, validate, log and commit them.

`create` prepares a run, and `_Session.generate` runs the loop. Completions arrive in any order and are committed in the
order of their requests. Every commit is logged, so that the same call resumes after any interruption: `_Session.resume`
brings the state to where the log ends.
"""

from __future__ import annotations

import gc
import platform
import socket
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from datacreate.creation.pipeline import Pipeline
from datacreate.creation.plan import RunPlan, make_plan, read_inputs
from datacreate.creation.recipe import describe_recipe
from datacreate.creation.run_models import (
    ClientFactory,
    ModelClients,
    RunModels,
    clients_of,
    models_of,
)
from datacreate.creation.state import RunState
from datacreate.engines import ENGINES
from datacreate.engines.factory import check_engine
from datacreate.engines.request import run_schema_test, scoring_test
from datacreate.errors import DatacreateError, LockLost, LogDamaged, NoProgress, Stopped, StorageError
from datacreate.filters import make_filters
from datacreate.filters.filter import FilterResources
from datacreate.formats.example import Example
from datacreate.formats.response import build_response_schema
from datacreate.hardware import installed_version
from datacreate.locking import FolderLock
from datacreate.messages import Notify, Progress
from datacreate.prompts.generation import chat_prompt
from datacreate.prompts.label_scoring import scoring_system_message
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import ComputeMetrics, RunDirectory, StoredConfig
from datacreate.runs.log import LogWriter, SessionStart, first_checksum
from datacreate.runs.stats import RunSummary
from datacreate.selection.embeddings import Embedder, PassedVectors, SentenceEmbedder
from datacreate.signals import Signals, caught_signals, deferred

_MAX_REQUESTS_WITHOUT_ACCEPTED = 64
"""A run fails after this many consecutive requests without an accepted example; the maximum number of
uncommitted requests is added."""

_MAX_SHOWN = 100  # an error shows this many characters of a rejected text

_POLL_SECONDS = 0.5


def create(
    config: CreateConfig,
    *,
    progress: Progress | None = None,
    client_factory: ClientFactory | None = None,
    embedder: Embedder | None = None,
    compute_metrics: ComputeMetrics | None = None,
) -> RunSummary:
    """Make the training set of `config`, or resume making it; returns its summary.

    `client_factory` replaces the servers and `embedder` the embedding model. `compute_metrics` measures the finished
    set for its dataset card.

    Raises what `read_inputs` and `make_plan` raise, and: CheckpointError if a model is not downloaded, RunMismatch if
    the directory has a different run, RunLocked if another process writes it, LogDamaged if its log is damaged,
    EngineError if a server fails, NoProgress if the model writes nothing usable. The same call resumes after
    ServersUnavailable, Stopped (SIGINT or SIGTERM), LockLost (another process has taken over the directory) and
    StorageError (the disk is full).
    """
    # Check everything for which no server must be started, and find the checkpoints.
    progress = progress or Progress()
    notify = progress.notify
    directory = RunDirectory(config.run_dir)
    if client_factory is None and not config.uses_remote_servers:
        check_engine(config.engine, notify)
    inputs = read_inputs(config)
    config = inputs.config
    models = models_of(config, inputs.verify, notify, needs_embedder=config.needs_embedder and embedder is None)
    recipe = describe_recipe(config, inputs.verify, inputs.inferred.format, models)
    for note in (recipe, *inputs.inferred.notes):
        notify(note)
    with ExitStack() as stack:
        signals = stack.enter_context(caught_signals())
        lock = stack.enter_context(directory.locked(notify))
        stored = directory.read_config() if directory.exists else None  # another process may have changed it
        clients = stack.enter_context(clients_of(models, config, client_factory, notify))

        # Decide everything else; for a new run this starts the servers, which are asked for token counts and slots. An
        # existing run must have been made with the same settings.
        plan = make_plan(replace(inputs, stored=stored), clients)
        if warning := plan.warning(config.count):
            notify(warning)
        stored_config = _stored_config_of_run(stored, plan, config.count, clients)
        if stored and directory.is_finished(config.count):
            stats = directory.stats()
            notify(f"the run has all of its {stats.accepted} examples; nothing is generated")
            _write_settings(directory, lock, plan, stored_config)
            return directory.write_results(stored_config, stats, lock, compute_metrics, notify)

        # Restore the state from the commits of earlier sessions.
        vectors = None
        if config.needs_embedder:
            vectors = _open_vectors(plan, models, embedder, directory.vectors_path, notify)
        filters = make_filters(plan.spec.filters, FilterResources(inputs.decontamination_sets, vectors))
        state = RunState(plan, config.count, filters, vectors)
        session = _Session(state, directory, lock, stored_config, progress, compute_metrics)
        if stored:
            session.resume()

        # Test the servers, and generate; the directory is written only after they have passed their tests.
        if not state.is_finished:
            for candidate_filter in filters:
                candidate_filter.prepare()
            _test_servers(clients, plan, notify)
        _write_settings(directory, lock, plan, stored_config)
        if not state.is_finished:
            session.generate(clients, signals)
        return session.save()


def _write_settings(directory: RunDirectory, lock: FolderLock, plan: RunPlan, stored_config: StoredConfig) -> None:
    """Write config.json and the passages of the user's documents. Raises LockLost before anything is written."""
    lock.check()
    if plan.passages:
        plan.passages.save(directory.passages_path)
    directory.write_config(stored_config)


def _test_servers(clients: ModelClients, plan: RunPlan, notify: Notify) -> None:
    """Start the servers that do not run yet, and test all: they must follow the schema of this run, and score labels.

    Raises EngineError if a server cannot start or fails a test.
    """
    spec, encoding = plan.spec, plan.encoding
    labels = encoding.format.labels if plan.method.assigns_labels else None
    schema = build_response_schema(encoding, 1, labels[:1] if labels else None)
    # The prompt is that of the run, so that the server's prefix cache has it afterwards.
    prompt = chat_prompt(encoding, plan.formatting_examples[:1], spec.num_examples, plan.content_of(0, {}))
    sampling = replace(plan.samplings[0], max_tokens=plan.samplings[0].max_tokens // spec.num_examples + 1)
    scoring_tests = [scoring_test(scoring_system_message(spec.instruction))] if spec.verification else []
    clients.start(notify, [run_schema_test(prompt, schema, sampling)], scoring_tests)


@dataclass
class _Session:
    """One process that works on a run: it reads the log, runs the loop and writes the results."""

    state: RunState
    directory: RunDirectory
    lock: FolderLock
    stored_config: StoredConfig
    progress: Progress
    compute_metrics: ComputeMetrics | None
    log: LogWriter | None = None

    def __post_init__(self) -> None:
        self.checksum = first_checksum(self.stored_config.run_id)  # that of the last line of the log

    def resume(self) -> None:
        """Read the log of earlier sessions, and bring the state to where it ends. Raises LogDamaged."""
        gc.disable()  # the state only grows: each collection would take longer, and find nothing
        try:
            for line in self.directory.log():
                self.state.replay(line, str(self.directory.log_path))
                self.checksum = line.checksum
        finally:
            gc.enable()
        if self.state.stats.requests:
            self.progress.notify(f"resuming from {self.state.stats.accepted} accepted examples")

    def generate(self, clients: ModelClients, signals: Signals) -> None:
        """Run the loop until the count is reached. After an error the results so far are saved, if that is possible.

        A signal does not interrupt a step of the loop: the next step raises Stopped.
        """
        try:
            with deferred(), closing(LogWriter(self.directory.log_path, self.checksum, self.lock)) as self.log:
                self._loop(self.log, Pipeline(self.state, clients), signals)
        except StorageError:  # the last commit may be missing in the log
            raise
        except DatacreateError:
            with suppress(StorageError, LockLost):
                self.save()
            raise

    def _loop(self, log: LogWriter, pipeline: Pipeline, signals: Signals) -> None:
        """Submit requests and commit their completions in order, until the count is reached.

        Raises Stopped after a signal, NoProgress after too many requests without an accepted example, and the errors
        of locks, log and servers.
        """
        state, label_noise_check = self.state, self.state.stats.verification.check
        # Uncommitted requests were made before the latest commit; allow for them.
        max_requests = _MAX_REQUESTS_WITHOUT_ACCEPTED + self.stored_config.spec.max_uncommitted
        state.advance(SessionStart(round(time.time(), 3), _environment()), log)
        self.progress.update(state.stats, self.stored_config.count, *pipeline.uncommitted)
        while not state.is_finished:
            if signals.received:
                done = f"{state.stats.accepted} of {self.stored_config.count} examples"
                raise Stopped(f"stopped by a signal after {done}; run the same command to resume")
            self.lock.check()
            log.sync()
            pipeline.submit()
            pipeline.poll(_POLL_SECONDS)
            while not state.is_finished and (parsed := pipeline.next_completed()) is not None:
                was_decided = label_noise_check.decided
                state.advance(parsed, log)
                if label_noise_check.decided and not was_decided:
                    self.progress.notify(label_noise_check.result)
                if state.stats.requests_since_accepted >= max_requests and not state.is_finished:
                    raise NoProgress(self._no_progress_message())
            self.progress.update(state.stats, self.stored_config.count, *pipeline.uncommitted)
        pipeline.abort()

    def save(self) -> RunSummary:
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
            self.stored_config, self.state.stats, self.lock, self.compute_metrics, self.progress.notify
        )

    def _no_progress_message(self) -> str:
        """Why the run fails: the reasons of all rejects, the last ones, and advice about the most frequent of these."""
        stats = self.state.stats
        reasons = ", ".join(f"{reason} {n}" for reason, n in stats.rejects.most_common())
        samples = " | ".join(f"{each.reason}: {each.text[:_MAX_SHOWN]!r}" for each in stats.last_rejects)
        [(last_reason, _)] = Counter(each.reason for each in stats.last_rejects).most_common(1)
        return (
            f"no example accepted in {stats.requests_since_accepted} requests in a row ({stats.accepted} of "
            f"{self.stored_config.count} so far); rejects: {reasons}; the last ones: {samples}; {last_reason.advice}"
        )


def _stored_config_of_run(
    stored: StoredConfig | None, plan: RunPlan, count: int, clients: ModelClients
) -> StoredConfig:
    """The content of config.json: that of the existing run with the new count, or that of a new run."""
    if stored:
        return stored.model_copy(update={"count": count})
    generators = clients.models.generators
    licenses = [generator.preset.license for generator in generators if generator.preset]
    are_known = len(licenses) == len(generators)
    return StoredConfig(
        spec=plan.spec,
        count=count,
        license=", ".join(dict.fromkeys(licenses)) if are_known else None,
        engines={name: dict(client.settings) for name, client in clients.by_name.items()},
        versions={name: version for name, version in _environment().items() if name != "host"},
    )


def _open_vectors(
    plan: RunPlan, models: RunModels, embedder: Embedder | None, path: Path, notify: Notify
) -> PassedVectors:
    """The vectors of examples that passed, in the file `path`.

    They are made by the embedding model, or by the `embedder` that replaces it.
    """
    if models.embedding_model:
        notify(f"loading {models.embedding_model.name}")
        embedder = SentenceEmbedder(models.embedding_model.path)
    assert embedder, "the caller has found a model or has an embedder"
    texts = [plan.text_of(root) for root in plan.formatting_examples or (Example({}),)]
    return PassedVectors(embedder, path, texts)


def _environment() -> dict[str, str]:
    """The host and the versions of this session, for the log."""
    engines = [package for engine in ENGINES.values() for package in engine.packages]
    packages = ["datacreate", *engines, "torch", "transformers", "sentence-transformers"]
    versions = {package: version for package in packages if (version := installed_version(package))}
    return {"host": socket.gethostname(), "python": platform.python_version(), **versions}
