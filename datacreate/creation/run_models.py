"""The models of a run (generators, verifier, embedding model) and their clients.

`models_of` finds the checkpoints, `clients_of` makes their clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations

from datacreate.checkpoints.checkpoint import Checkpoint, read_adapter, resolve, with_adapter
from datacreate.checkpoints.folder import combined_sha256
from datacreate.checkpoints.presets import Thinking
from datacreate.engines.factory import LocalModel, make_client, only_model, resolve_checkpoint
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import DEFAULT_THINKING, ServerTest
from datacreate.errors import CheckpointError, UsageError
from datacreate.messages import Notify
from datacreate.runs.config import CreateConfig
from datacreate.verification import VerifyMode

_USUAL_THINKING = Thinking(enable={"enable_thinking": True}, disable={"enable_thinking": False})
"""The switch of most chat templates; others ignore it."""


@dataclass(frozen=True)
class RunModels:
    """The checkpoints of a run: without an embedding model or verifier if it needs none."""

    generators: tuple[Checkpoint, ...]  # if there are several, they share the requests
    embedding_model: Checkpoint | None
    verifier: Checkpoint | None  # one of the generators, or another model

    @property
    def name(self) -> str:
        """The names of the generators."""
        return " + ".join(generator.name for generator in self.generators)

    @property
    def sha256(self) -> str:
        """One SHA-256 for the weights of all generators, in their order."""
        if len(self.generators) == 1:
            return self.generators[0].sha256
        return combined_sha256({str(index): generator.sha256 for index, generator in enumerate(self.generators)})


def models_of(config: CreateConfig, verify: VerifyMode, notify: Notify, *, needs_embedder: bool) -> RunModels:
    """Find the checkpoints that a run needs on this machine; `needs_embedder` says whether it compares embeddings.

    Raises CheckpointError if one is not downloaded or an adapter does not fit, UsageError if a generator cannot think
    as --thinking says, or if the verifier that the user asks for cannot be kept from thinking.
    """
    embedding_model = embedding_model_of(config) if needs_embedder else None
    names = config.models
    if config.uses_remote_servers and "model" not in config.model_fields_set:
        names = (only_model(config, notify, config.chat_template_kwargs),)
    generators = tuple(resolve_checkpoint(name, config) for name in names)
    if config.adapter is not None:
        generators = (with_adapter(generators[0], read_adapter(config.adapter)),)
    for (name, first), (other_name, second) in combinations(zip(names, generators, strict=True), 2):
        if first.sha256 == second.sha256 or first.name == second.name:
            what = "weights" if first.sha256 == second.sha256 else "name"
            raise UsageError(f"--model: {name} and {other_name} have the same {what}; give different models")
    for generator in generators:
        thinking_limit(config, generator)
    return RunModels(generators, embedding_model, _verifier(config, verify, generators[0]))


def _verifier(config: CreateConfig, verify: VerifyMode, generator: Checkpoint) -> Checkpoint | None:
    """The model of --verifier, or the generator; None if nothing is verified, or the generator always thinks."""
    if verify == "off":
        return None
    verifier = resolve_checkpoint(config.verifier, config) if config.verifier else generator
    if verifier.always_thinks and not (config.verify or config.verifier):  # only the recipe asks for it
        return None
    verifier.check_can_score()
    return verifier


def embedding_model_of(config: CreateConfig) -> Checkpoint:
    """The checkpoint of --embedding-model. Raises CheckpointError, NotDownloaded among them."""
    try:
        return resolve(config.embedding_model, "encoder")
    except CheckpointError as error:
        raise type(error)(f"--embedding-model: {error}") from None


def _thinking_of(config: CreateConfig, checkpoint: Checkpoint) -> Thinking | None:
    """The way a model thinks: that of its preset; without a preset and with --thinking, that of most models."""
    return checkpoint.thinking if checkpoint.preset or config.thinking is None else _USUAL_THINKING


def thinking_limit(config: CreateConfig, checkpoint: Checkpoint) -> int:
    """The maximum number of tokens that a generator thinks before each response; 0 if it does not think.

    Raises UsageError if it cannot think as --thinking says.
    """
    requested, thinking = config.thinking, _thinking_of(config, checkpoint)
    if requested == "off" and checkpoint.always_thinks:
        raise UsageError(f"--thinking off: {checkpoint.name} always thinks; remove it, or use another --model")
    switches = (thinking.disable if thinking else None) or {}
    if repeated := switches.keys() & config.chat_template_kwargs.keys():
        raise UsageError(
            f"--chat-template-kwargs {min(repeated)}: that is what --thinking sets; use --thinking on or off"
        )
    if requested in (None, "off"):
        return DEFAULT_THINKING if checkpoint.always_thinks else 0
    if thinking is None:
        raise UsageError(f"--thinking {requested}: {checkpoint.name} does not think; remove it, or use another --model")
    return requested if isinstance(requested, int) else DEFAULT_THINKING


ClientFactory = Callable[[Checkpoint, CreateConfig], ModelClient]
"""Makes the client of a model."""


@dataclass(frozen=True)
class ModelClients:
    """The models of a run, and their clients. The verifier may have the client of a generator."""

    models: RunModels
    by_name: dict[str, ModelClient]  # as in config.json: `engine`, `engine-2`, ...; `verifier` if it has its own
    verifier: ModelClient

    @property
    def generators(self) -> tuple[ModelClient, ...]:
        """The client of each generator, in the order of `models.generators`."""
        return tuple(self.by_name.values())[: len(self.models.generators)]

    def start(
        self, notify: Notify, generation_tests: Sequence[ServerTest], scoring_tests: Sequence[ServerTest]
    ) -> None:
        """Start the servers, and return when all have passed the tests.

        Each generator gets `generation_tests`, the verifier `scoring_tests`. Raises EngineError if a server fails.
        """
        for client, generator in zip(self.generators, self.models.generators, strict=True):
            notify(f"testing {generator.name}")
            client.start([*(scoring_tests if client is self.verifier else ()), *generation_tests])
        if self.verifier not in self.generators and self.models.verifier:
            notify(f"testing {self.models.verifier.name}, the verifier")
            self.verifier.start(scoring_tests)


@contextmanager
def clients_of(
    models: RunModels, config: CreateConfig, factory: ClientFactory | None, notify: Notify
) -> Iterator[ModelClients]:
    """The clients of a run, not started yet; they are closed at the end of the block.

    A verifier with the weights of a generator shares its client. `factory` replaces the servers, as in tests.
    """
    weights = [generator.sha256 for generator in models.generators]
    local_models = {
        f"engine-{number}" if number > 1 else "engine": LocalModel(generator, config)
        for number, generator in enumerate(models.generators, 1)
    }
    verifier, name_of_verifier = models.verifier, "engine"
    if verifier and verifier.sha256 in weights:
        name_of_verifier = list(local_models)[weights.index(verifier.sha256)]
    elif verifier:
        name_of_verifier = "verifier"
        local_models[name_of_verifier] = LocalModel(verifier, config.for_verifier, only_scores=True)
    clients: dict[str, ModelClient] = {}
    with ExitStack() as stack:
        for name, model in local_models.items():
            if factory:
                client = factory(model.checkpoint, config)
            else:
                client = make_client(
                    model,
                    count=config.count,
                    log=config.run_dir / f"{name}.log",
                    template_kwargs=None if model.only_scores else config.chat_template_kwargs,
                    thinking=_thinking_of(config, model.checkpoint),
                    sharing=list(local_models.values()),
                    notify=notify,
                )
            stack.callback(client.close)
            clients[name] = client
        yield ModelClients(models, clients, clients[name_of_verifier])
