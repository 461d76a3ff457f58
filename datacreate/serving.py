"""Which checkpoints a run needs, and the engines that serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from datacreate.checkpoints import Checkpoint, resolve
from datacreate.checkpoints.preset import EngineSettings
from datacreate.engines.base import Engine
from datacreate.errors import UsageError
from datacreate.runs.config import CreateConfig, VerifyMode
from datacreate.runs.directory import RunDirectory
from datacreate.tasks.blind import MOST_LETTERED, can_be_asked
from datacreate.tasks.infer import Understood

Role = Literal["writer", "verifier"]

EngineFactory = Callable[[Checkpoint, CreateConfig, RunDirectory, Role], Engine]

SHARED_GPU = 0.45
"""Each engine's share of a GPU's memory where writer and verifier are two, and nobody says otherwise."""


@dataclass(frozen=True)
class Models:
    """The checkpoints of a run; None where none is needed."""

    writer: Checkpoint
    encoder: Checkpoint | None
    verifier: Checkpoint | None  # the writer itself, or another


def models_of(config: CreateConfig, understood: Understood, embeds: bool) -> Models:
    """The checkpoints that a run needs, `embeds` saying whether texts are embedded.

    Raises CheckpointError if one is not here, UsageError if there is nothing to verify.
    """
    writer = resolve(config.model, "instruct")
    encoder = resolve(config.encoder, "encoder") if embeds else None
    if verify_mode(config, understood) == "off":
        return Models(writer, encoder, None)
    return Models(writer, encoder, resolve(config.verifier, "instruct") if config.verifier else writer)


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
    """What writes and what verifies: two engines, or one and the same."""

    writer: Engine
    verifier: Engine

    def start(self, models: Models, note: Callable[[str], None]) -> None:
        """Load what is not loaded; returns when both can be asked."""
        note(f"loading {models.writer.name}")
        self.writer.start()
        if self.verifier is not self.writer and models.verifier:
            note(f"loading {models.verifier.name}, which verifies")
            self.verifier.start()


@contextmanager
def engines_of(
    models: Models, config: CreateConfig, directory: RunDirectory, factory: EngineFactory | None
) -> Iterator[Engines]:
    """The engines of a run, not yet started; closed at the end. By default vLLM's."""
    make = factory or vllm_engine
    with ExitStack() as stack:
        writer = make(models.writer, config, directory, "writer")
        stack.callback(writer.close)
        verifier = writer
        if models.verifier and models.verifier.sha256 != models.writer.sha256:
            verifier = make(models.verifier, config, directory, "verifier")
            stack.callback(verifier.close)
        yield Engines(writer, verifier)


def vllm_engine(checkpoint: Checkpoint, config: CreateConfig, directory: RunDirectory, role: Role) -> Engine:
    """The default engine: vLLM, with the preset's settings; the user's are for what writes."""
    from datacreate.engines.vllm import VllmEngine, compiles

    settings = checkpoint.preset.engine if checkpoint.preset else EngineSettings()
    told: dict[str, Any] = {}
    if settings.enforce_eager is None:
        told["enforce_eager"] = not compiles(config.count)
    if config.verifier and settings.gpu_memory_utilization is None:
        told["gpu_memory_utilization"] = SHARED_GPU
    if role == "writer":
        told |= {
            name: value
            for name in EngineSettings.model_fields
            if (value := getattr(config, name, None)) is not None
        }
    template = dict(checkpoint.preset.chat_template) if checkpoint.preset else {}
    settings = EngineSettings(**{**settings.model_dump(), **told})
    return VllmEngine(
        checkpoint.path,
        settings,
        template,
        directory.engine_log_path if role == "writer" else directory.verifier_log_path,
    )
