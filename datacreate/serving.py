"""Which checkpoints a run needs, and the engines that serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from datacreate.checkpoints import Checkpoint, read_adapter, resolve, served, with_adapter
from datacreate.checkpoints.hashes import identity
from datacreate.checkpoints.preset import EngineSettings
from datacreate.engines.base import PLAIN, Engine
from datacreate.engines.openai import Addresses, Patience, ServedEngine, Wire, served_model
from datacreate.errors import UsageError
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
    engines: int = 1  # of the run in all
    note: Callable[[str], None] = field(default=lambda _: None, compare=False)  # tells the user something


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


def models_of(
    config: CreateConfig, understood: Understood, embeds: bool, note: Callable[[str], None]
) -> Models:
    """The checkpoints that a run needs, `embeds` saying whether texts are embedded.

    Raises CheckpointError if one is not here or an adapter does not fit, UsageError if there is
    nothing to verify.
    """
    writers = tuple(_checkpoint(name, config) for name in _names(config, note))
    if config.adapter is not None:
        writers = (with_adapter(writers[0], read_adapter(config.adapter)),)
    writers = _told_apart(writers)
    encoder = resolve(config.encoder, "encoder") if embeds else None
    if verify_mode(config, understood) == "off":
        return Models(writers, encoder, None)
    verifier = writers[0]
    if config.verifier:
        verifier = _checkpoint(config.verifier, config)
    return Models(writers, encoder, verifier)


def _names(config: CreateConfig, note: Callable[[str], None]) -> tuple[str, ...]:
    """The models that write; behind servers, where none is named, the one that they serve."""
    if not config.served or "model" in config.model_fields_set:
        return config.models
    return (served_model(Addresses.of(config.urls), _patience(config), note),)


def _checkpoint(name: str, config: CreateConfig) -> Checkpoint:
    """The checkpoint of that name; behind servers it need not be on this machine."""
    return served(name) if config.served else resolve(name, "instruct", remote_code=config.remote_code)


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
            note(f"{_doing(engine)} {writer.name}")
            engine.start()
            note_of_base(engine, writer, note)
        if self.verifier not in self.writers and models.verifier:
            note(f"{_doing(self.verifier)} {models.verifier.name}, which verifies")
            self.verifier.start()
            note_of_base(self.verifier, models.verifier, note)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of the servers that answer; () where the models are loaded here."""
        return tuple(
            dict.fromkeys(
                url for engine in (*self.writers, self.verifier) for url in engine.settings.get("urls", ())
            )
        )

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """How each is loaded, by the name of its seat."""
        told = {_seat(turn): dict(engine.settings) for turn, engine in enumerate(self.writers)}
        return told if self.verifier in self.writers else {**told, VERIFIER: dict(self.verifier.settings)}


def _doing(engine: Engine) -> str:
    return "asking" if "urls" in engine.settings else "loading"


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
    """The engines of a run, not yet started; closed at the end. By default vLLM's, here or served."""
    make = factory or (served_engine if config.served else vllm_engine)
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
    """The default engine: vLLM, with the preset's settings; the user's are for what writes."""
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
    settings = _engine_settings(settings, told)
    log = directory.log_of(seat.name)
    return VllmEngine(checkpoint, settings, template, log, shares_cores=seat.engines > 1)


def engine_to_serve(
    model: str, adapter: Path | None, remote_code: bool, settings: Mapping[str, Any]
) -> tuple[VllmEngine, str]:
    """An engine that says how a model is to be loaded for a server, and the name to serve it under.

    Raises CheckpointError, UsageError for a setting that is out of range.
    """
    from datacreate.engines.vllm import WORTH_COMPILING, VllmEngine, compiles

    checkpoint = resolve(model, "instruct", remote_code=remote_code)
    if adapter is not None:
        checkpoint = with_adapter(checkpoint, read_adapter(adapter))
    own = checkpoint.preset.engine if checkpoint.preset else EngineSettings()
    told = {name: value for name, value in settings.items() if value is not None}
    if own.enforce_eager is None:  # a server is for long work
        told.setdefault("enforce_eager", not compiles(WORTH_COMPILING))
    return VllmEngine(checkpoint, _engine_settings(own, told)), checkpoint.name


def _engine_settings(own: EngineSettings, told: Mapping[str, Any]) -> EngineSettings:
    """The preset's settings, and over them those that were told."""
    try:
        return EngineSettings(**{**own.model_dump(), **told})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        flag = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{flag} {first['input']}: {first['msg']}") from None


def served_engine(
    checkpoint: Checkpoint, config: CreateConfig, _directory: RunDirectory, seat: Seat = Seat()
) -> Engine:
    """The model behind servers, by the name that it has here or the folder that it was loaded from."""
    template = dict(checkpoint.preset.chat_template) if checkpoint.preset else {}
    if seat.writes:
        template |= config.chat_template
    return ServedEngine(
        Addresses.of(config.urls),
        Wire((checkpoint.name, str(checkpoint.path)), template),
        max_num_seqs=config.max_num_seqs,
        max_context=config.max_model_len,
        patience=_patience(config),
        note=seat.note,
    )


def _patience(config: CreateConfig) -> Patience:
    """Who gives a folder expects servers to come; an address that does not answer is a mistake."""
    told = {} if config.wait is None else {"alone": config.wait}
    expects = config.wait is not None or bool(Addresses.of(config.urls).folders)
    return Patience(answer=config.request_timeout, at_start=expects, **told)
