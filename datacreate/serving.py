"""Which checkpoints a run needs, and the engines that serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any

from datacreate.checkpoints import Checkpoint, read_adapter, resolve, with_adapter
from datacreate.checkpoints.hashes import identity
from datacreate.checkpoints.preset import EngineSettings
from datacreate.engines.base import PLAIN, Engine
from datacreate.engines.placing import Place, places_for
from datacreate.engines.replicas import Replicas
from datacreate.errors import EngineError, UsageError
from datacreate.runs.config import CreateConfig, VerifyMode
from datacreate.runs.directory import RunDirectory
from datacreate.tasks.blind import MOST_LETTERED, can_be_asked
from datacreate.tasks.infer import Understood

if TYPE_CHECKING:
    from datacreate.engines.vllm import VllmEngine

SHARED_GPU = 0.9
"""The share of a GPU's memory that the engines of a run divide among them, unless somebody says otherwise."""


@dataclass(frozen=True)
class Seat:
    """An engine's place among those of a run."""

    name: str = "engine"  # of its log: `engine`, `engine-2` and so on for those that write, or `verifier`
    writes: bool = True
    engines: int = 1  # of the run in all, copies aside
    note: Callable[[str], None] = lambda _: None  # is told what the user should know


EngineFactory = Callable[[Checkpoint, CreateConfig, RunDirectory, Seat], Engine]


@dataclass(frozen=True)
class Models:
    """The checkpoints of a run; None where none is needed."""

    writers: tuple[Checkpoint, ...]  # one or several, which take turns
    encoder: Checkpoint | None
    verifier: Checkpoint | None  # one of the writers, or another

    @property
    def name(self) -> str:
        """What writes, in words."""
        return " + ".join(writer.name for writer in self.writers)

    @property
    def sha256(self) -> str:
        """The identity of what writes: of several, over them in their order."""
        if len(self.writers) == 1:
            return self.writers[0].sha256
        return identity({str(turn): writer.sha256 for turn, writer in enumerate(self.writers)})


def models_of(config: CreateConfig, understood: Understood, embeds: bool) -> Models:
    """The checkpoints that a run needs, `embeds` saying whether texts are embedded.

    Raises CheckpointError if one is not here or an adapter does not fit, UsageError if there is
    nothing to verify.
    """
    writers = tuple(resolve(name, "instruct", remote_code=config.remote_code) for name in config.models)
    if config.adapter is not None:
        writers = (with_adapter(writers[0], read_adapter(config.adapter)),)
    writers = _told_apart(writers)
    encoder = resolve(config.encoder, "encoder") if embeds else None
    if verify_mode(config, understood) == "off":
        return Models(writers, encoder, None)
    verifier = writers[0]
    if config.verifier:
        verifier = resolve(config.verifier, "instruct", remote_code=config.remote_code)
    return Models(writers, encoder, verifier)


def _told_apart(writers: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
    """Writers by names of their own; UsageError if two are the same model."""
    if len({writer.sha256 for writer in writers}) < len(writers):
        raise UsageError("--model: two of these are the same model by its weights; name each once")
    names = [writer.name for writer in writers]
    return tuple(
        replace(writer, name=f"{writer.name} {writer.sha256[:8]}") if names.count(writer.name) > 1 else writer
        for writer in writers
    )


def verify_mode(config: CreateConfig, understood: Understood) -> VerifyMode:
    """How labels are verified; UsageError if that was asked for where the choices cannot be asked for."""
    format = understood.format
    # Whoever names a verifier wants it to work.
    asked = config.verify or ("drop" if config.verifier else None)
    if asked is None:
        # Where options vary, verification has not been shown to help yet; dealt labels can be noise.
        wanted = can_be_asked(format) and format.labels and config.method == "datacreate"
        return "drop" if wanted else "off"
    if asked == "off" or can_be_asked(format):
        return asked
    flag = f"--verify {config.verify}" if config.verify else f"--verifier {config.verifier}"
    if format.options_vary and format.roles.answer is not None:
        raise UsageError(
            f"{flag}: options can be asked for if the format has the rule answer_in_options "
            f"and an example no more than {MOST_LETTERED} of them; leave {flag.split()[0]} out"
        )
    raise UsageError(
        f"{flag}: the answers of the format {format.name} are free text, which nothing can verify; "
        f"say what they may be with --labels FIELD=a,b,c, or leave {flag.split()[0]} out"
    )


@dataclass(frozen=True)
class Engines:
    """What writes and what verifies: the verifier may be one of those that write."""

    writers: tuple[Engine, ...]
    verifier: Engine

    def start(self, models: Models, note: Callable[[str], None]) -> None:
        """Load what is not loaded; returns when all can be asked."""
        for engine, writer in zip(self.writers, models.writers, strict=True):
            note(f"loading {writer.name}{_copies(engine)}")
            engine.start()
            note_of_base(engine, writer, note)
        if self.verifier not in self.writers and models.verifier:
            note(f"loading {models.verifier.name}{_copies(self.verifier)}, which verifies")
            self.verifier.start()
            note_of_base(self.verifier, models.verifier, note)

    @property
    def to_prove(self) -> Iterator[Engine]:
        """Each copy of what writes, for the self-test."""
        for engine in self.writers:
            yield from engine.members if isinstance(engine, Replicas) else (engine,)

    @property
    def replicas(self) -> int:
        """How many copies there are of what writes: of several models, of the first."""
        return _number(self.writers[0])

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """How each is loaded, by the name of its seat."""
        told = {_seat(turn): dict(engine.settings) for turn, engine in enumerate(self.writers)}
        return told if self.verifier in self.writers else {**told, VERIFIER: dict(self.verifier.settings)}


def _number(engine: Engine) -> int:
    return int(engine.settings.get("replicas", 1))


def _copies(engine: Engine) -> str:
    return f", {number} copies of it" if (number := _number(engine)) > 1 else ""


def note_of_base(engine: Engine, checkpoint: Checkpoint, note: Callable[[str], None]) -> None:
    """Say it where a model is a base model, which is asked otherwise."""
    if engine.settings.get("prompt") == PLAIN:
        note(
            f"{checkpoint.name} has no chat template, as a base model: it is given plain text to go on with; "
            "an instruct model follows better"
        )


VERIFIER = "verifier"


def _seat(turn: int) -> str:
    return f"engine-{turn + 1}" if turn else "engine"


@contextmanager
def engines_of(
    models: Models,
    config: CreateConfig,
    directory: RunDirectory,
    factory: EngineFactory | None,
    note: Callable[[str], None],
) -> Iterator[Engines]:
    """The engines of a run, not yet started; closed at the end. By default vLLM's."""
    make = factory or vllm_engine
    places = {writer.sha256: turn for turn, writer in enumerate(models.writers)}
    alone = models.verifier is not None and models.verifier.sha256 not in places
    number = len(models.writers) + alone
    with ExitStack() as stack:
        writers: list[Engine] = []
        for turn, writer in enumerate(models.writers):
            writers.append(make(writer, config, directory, Seat(_seat(turn), True, number, note)))
            stack.callback(writers[-1].close)
        verifier = writers[places.get(models.verifier.sha256, 0)] if models.verifier else writers[0]
        if alone and models.verifier:
            verifier = make(models.verifier, config, directory, Seat(VERIFIER, False, number, note))
            stack.callback(verifier.close)
        yield Engines(tuple(writers), verifier)


def vllm_engine(
    checkpoint: Checkpoint, config: CreateConfig, directory: RunDirectory, seat: Seat = Seat()
) -> Engine:
    """The default engine: vLLM, with the preset's settings; the user's are for what writes.

    UsageError if this machine has no room for so many replicas.
    """
    from datacreate.engines.vllm import VllmEngine, compiles

    settings = checkpoint.preset.engine if checkpoint.preset else EngineSettings()
    template = dict(checkpoint.preset.chat_template) if checkpoint.preset else {}
    told: dict[str, Any] = {}
    if settings.enforce_eager is None:
        told["enforce_eager"] = not compiles(config.count)
    if seat.engines > 1:
        told["gpu_memory_utilization"] = round(
            (settings.gpu_memory_utilization or SHARED_GPU) / seat.engines, 3
        )
    if seat.writes:
        template |= config.chat_template
        told |= {
            name: value
            for name in EngineSettings.model_fields
            if (value := getattr(config, name, None)) is not None
        }
    settings = EngineSettings(**{**settings.model_dump(), **told})
    log = directory.log_of(seat.name)
    engine = VllmEngine(checkpoint, settings, template, log, shares_cores=seat.engines > 1)
    return _replicated(engine, config, directory, seat)


def _replicated(engine: VllmEngine, config: CreateConfig, directory: RunDirectory, seat: Seat) -> Engine:
    """So many of it as the user asked for, or as this machine and the count call for.

    `auto` leaves out GPUs that others have filled, and starts no more engines than the count would
    fill at one request an example.
    """
    places = places_for(config.replicas, engine.device, engine.gpus)
    if config.replicas == "auto" and len(places) > 1:
        free = (place for place in places if _fits(engine.beside(place, None), seat.note))
        places = tuple(islice(free, ceil(config.count / engine.capacity))) or (Place(),)
    if len(places) == 1:
        return engine.beside(places[0], directory.log_of(seat.name)) if places[0].gpus else engine
    logs = [directory.log_of(f"{seat.name}.{number}") for number in range(1, len(places) + 1)]
    return Replicas([engine.beside(*each) for each in zip(places, logs, strict=True)], seat.note)


def _fits(engine: VllmEngine, note: Callable[[str], None]) -> bool:
    try:
        engine.check()
    except EngineError as error:
        note(f"{engine.place} is left out: {str(error).partition(';')[0]}")
        return False
    return True
