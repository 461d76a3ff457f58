"""What writes and what verifies in a run, started and closed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from datacreate.checkpoints import Checkpoint
from datacreate.engines.base import Engine
from datacreate.engines.replicas import Replicas
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from datacreate.serving import here
from datacreate.serving.elsewhere import served_engine
from datacreate.serving.models import Models
from datacreate.serving.seat import EngineFactory, Seat


@dataclass(frozen=True)
class Engines:
    """What writes and what verifies: the verifier may be one of those that write."""

    writers: tuple[Engine, ...]
    verifier: Engine

    def start(self, models: Models, note: Callable[[str], None]) -> None:
        """Load what is not loaded; returns when all can be asked."""
        for engine, writer in zip(self.writers, models.writers, strict=True):
            note(f"{_doing(engine)} {writer.name}{_copies(engine)}")
            engine.start()
            note_of_base(engine, writer, note)
        if self.verifier not in self.writers and models.verifier:
            note(f"{_doing(self.verifier)} {models.verifier.name}{_copies(self.verifier)}, which verifies")
            self.verifier.start()
            note_of_base(self.verifier, models.verifier, note)

    @property
    def to_prove(self) -> Iterator[Engine]:
        """Each copy of what writes, for the self-test."""
        for engine in self.writers:
            yield from engine.members if isinstance(engine, Replicas) else (engine,)

    @property
    def where(self) -> dict[str, str]:
        """What a session's record says of them: copies, or the servers that answered."""
        engines = (*self.writers, self.verifier)
        urls = dict.fromkeys(url for engine in engines for url in engine.urls)
        copies = self.writers[0].copies  # of several models, of the first
        servers = {"servers": ", ".join(urls)} if urls else {}
        return servers | ({"replicas": str(copies)} if copies > 1 else {})

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """How each is loaded, by the name of its seat."""
        told = {_seat(turn): dict(engine.settings) for turn, engine in enumerate(self.writers)}
        return told if self.verifier in self.writers else {**told, VERIFIER: dict(self.verifier.settings)}


def _doing(engine: Engine) -> str:
    return "asking" if engine.urls else "loading"


def _copies(engine: Engine) -> str:
    return f", {engine.copies} copies of it" if engine.copies > 1 else ""


def note_of_base(engine: Engine, checkpoint: Checkpoint, note: Callable[[str], None]) -> None:
    """Say it where a model is a base model, which is asked otherwise."""
    if not engine.has_chat_template:
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
    make = factory or (served_engine if config.served else here.vllm_engine)
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
