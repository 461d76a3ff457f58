"""Models behind servers, as the user's settings have them asked."""

from __future__ import annotations

from collections.abc import Callable

from datacreate.checkpoints import Checkpoint
from datacreate.engines.base import Engine
from datacreate.engines.openai import Addresses, Patience, ServedEngine, Wire, served_model
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from datacreate.serving.seat import ALONE, Seat


def only_model(config: CreateConfig, note: Callable[[str], None]) -> str:
    """The one model that the servers serve. ServersGone if none answers, EngineError if there are several."""
    return served_model(Addresses.of(config.urls), _patience(config), note)


def served_engine(
    checkpoint: Checkpoint, config: CreateConfig, _directory: RunDirectory, seat: Seat = ALONE
) -> Engine:
    """The model behind servers, by the name that it has here or the folder that it was loaded from."""
    template = dict(checkpoint.chat_template)
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
    expects = config.wait is not None or config.servers > 1 or bool(Addresses.of(config.urls).folders)
    return Patience(answer=config.request_timeout, at_start=expects, servers=config.servers, **told)
