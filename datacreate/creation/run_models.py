"""The models of a run (generators, verifier, embedding model), their clients and the defaults of its recipe.

`models_of` finds the checkpoints, `clients_of` makes their clients. `strategy_of`, `verify_mode` and `sampling_of`
decide what the user leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from itertools import combinations

from datacreate.checkpoints.checkpoint import Checkpoint, read_adapter, resolve, with_adapter
from datacreate.checkpoints.folder import combined_sha256
from datacreate.checkpoints.presets import Thinking
from datacreate.engines.factory import LocalModel, make_client, only_model, resolve_checkpoint
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import DEFAULT_THINKING, Sampling, ServerTest
from datacreate.errors import CheckpointError, NotDownloaded, UsageError
from datacreate.formats.task_format import TaskFormat
from datacreate.messages import Notify
from datacreate.prompts.label_scoring import MAX_LETTERS, can_score_labels, check_scorable
from datacreate.runs.config import AUTO, CreateConfig, RunSpec
from datacreate.verification.scoring import VerifyMode

_USUAL_THINKING = Thinking(enable={"enable_thinking": True}, disable={"enable_thinking": False})
"""The switch of most chat templates; others ignore it."""


@dataclass(frozen=True)
class RunModels:
    """The checkpoints of a run: without an embedding model or verifier if it needs none."""

    generators: tuple[Checkpoint, ...]  # several share the requests
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
    embedding_model = _embedding_model(config) if needs_embedder else None
    names = config.models
    if config.uses_running_servers and "model" not in config.model_fields_set:
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
    if verifier.always_thinks and not (config.verify or config.verifier):  # the recipe asks, not the user
        return None
    verifier.check_scores()
    return verifier


def _embedding_model(config: CreateConfig) -> Checkpoint:
    """The checkpoint of --embedding-model. Raises CheckpointError, NotDownloaded among them."""
    try:
        return resolve(config.embedding_model, "encoder")
    except CheckpointError as error:
        raise type(error)(f"--embedding-model: {error}") from None


def _thinking_of(config: CreateConfig, checkpoint: Checkpoint) -> Thinking | None:
    """The way a model thinks: that of its preset; without a preset and with --thinking, that of most models."""
    return checkpoint.thinking if checkpoint.preset or config.thinking is None else _USUAL_THINKING


def thinking_limit(config: CreateConfig, checkpoint: Checkpoint) -> int:
    """The most tokens that a generator thinks before each answer; 0 if it does not think.

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


def sampling_of(
    config: CreateConfig, checkpoint: Checkpoint, max_tokens: int, longest_text: int | None = None
) -> Sampling:
    """The sampling settings of a generator: of the user, else of its preset; None for the default of the server.

    The recipe of the paper ignores the preset. `max_tokens` and `longest_text` are the limits if the user sets none, in
    tokens of a completion and characters of one text.
    """
    sampling = Sampling(max_tokens, thinking_limit(config, checkpoint) or None, longest_text)
    if checkpoint.preset and config.recipe != "paper":
        sampling = replace(sampling, **checkpoint.preset.sampling.model_dump(exclude_none=True))
        if sampling.thinking and checkpoint.thinking:
            sampling = replace(sampling, **checkpoint.thinking.sampling.model_dump(exclude_none=True))
    names = {field.name for field in fields(Sampling)} - {"thinking"}
    return replace(sampling, **config.model_dump(include=names, exclude_none=True))


def strategy_of(config: CreateConfig, stored: RunSpec | None) -> str:
    """The strategy of the user, else of the existing run, else of the recipe.

    The recipe best uses coverage, or tree if the embedding model is not downloaded. Raises CheckpointError if that
    model is damaged.
    """
    if config.strategy != AUTO:
        return config.strategy
    if stored:
        return stored.strategy
    return "coverage" if config.recipe == "best" and _has_embedder(config) else "tree"


def _has_embedder(config: CreateConfig) -> bool:
    """Whether the embedding model is on this machine. Raises CheckpointError if it is damaged."""
    try:
        _embedding_model(config)
    except NotDownloaded:
        return False
    return True


def verify_mode(config: CreateConfig, task_format: TaskFormat) -> VerifyMode:
    """The mode of verification: of the user, else `drop` with --verifier or the recipe best where labels can be scored.

    Raises UsageError if verification is requested and the labels cannot be scored.
    """
    requested = config.verify or ("drop" if config.verifier else None)
    if requested is None:
        # Many labels can be scored only if no two start with the same token, which the model decides.
        can_score = can_score_labels(task_format, scored_by_letter=True)
        return "drop" if config.recipe == "best" and can_score else "off"
    if requested == "off":
        return requested
    if requested == "relabel" and task_format.roles.tools:
        raise UsageError(
            "--verify relabel: a call cannot be relabeled (other functions take other arguments); use --verify drop"
        )
    flag = f"--verify {config.verify}" if config.verify else f"--verifier {config.verifier}"
    check_scorable(task_format, flag)
    return requested


def describe_recipe(config: CreateConfig, verify: VerifyMode, task_format: TaskFormat, models: RunModels | None) -> str:
    """The strategy and verification of a run in one line for the user. `models` is None if only a server knows them."""
    verification = _describe_verification(config, verify, task_format, models)
    if config.improves:
        return f"strategy {config.strategy}, as always for improve; {verification}"
    line = f"recipe {config.recipe}: strategy {config.strategy}, {verification}"
    if config.recipe == "best" and config.strategy == "tree" and not _has_embedder(config):
        line += f"; for the strategy coverage: `datacreate models pull {config.embedding_model}`"
    return line


def _describe_verification(
    config: CreateConfig, verify: VerifyMode, task_format: TaskFormat, models: RunModels | None
) -> str:
    if verify != "off":
        if models and not models.verifier:
            reason = f"{models.generators[0].name} always thinks, so it cannot score them"
            return f"answers are not verified: {reason}; a --verifier that does not think can"
        verifier = models.verifier.name if models and models.verifier else config.verifier or "the generator"
        return f"answers verified by {verifier} ({verify})"
    if not task_format.roles.answer:
        return "no answer field found, so nothing is verified or balanced"
    if not can_score_labels(task_format):
        return "answers cannot be verified (free text)"
    if config.recipe == "best" and config.verify is None:
        return f"answers are not verified; --verify drop tries it with more than {MAX_LETTERS} labels"
    return "answers are not verified"


ClientFactory = Callable[[Checkpoint, CreateConfig], ModelClient]
"""Makes the client of a model."""


@dataclass(frozen=True)
class ModelClients:
    """The models of a run, and their clients. The verifier may have the client of a generator."""

    models: RunModels
    by_name: dict[str, ModelClient]  # `engine`, `engine-2`, ..., and `verifier` if it has one of its own
    verifier: ModelClient

    @property
    def generators(self) -> tuple[ModelClient, ...]:
        """The client of each generator, in the order of `models.generators`."""
        return tuple(self.by_name.values())[: len(self.models.generators)]

    def start(
        self, notify: Notify, generation_tests: Sequence[ServerTest], scoring_tests: Sequence[ServerTest]
    ) -> None:
        """Start the servers, and return when all have passed their self-tests.

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
        local_models[name_of_verifier] = LocalModel(verifier, config.for_verifier, verifies=True)
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
                    template_kwargs=None if model.verifies else config.chat_template_kwargs,
                    thinking=_thinking_of(config, model.checkpoint),
                    sharing=list(local_models.values()),
                    notify=notify,
                )
            stack.callback(client.close)
            clients[name] = client
        yield ModelClients(models, clients, clients[name_of_verifier])
