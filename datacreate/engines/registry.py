"""The engines that datacreate can start. To add one, write its module and its line in `ENGINES`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from datacreate.engines.kind import EngineKind
from datacreate.engines.llamacpp import LLAMACPP
from datacreate.engines.vllm import VLLM

_KINDS: tuple[EngineKind, ...] = (
    VLLM,
    LLAMACPP,
)

ENGINES = {kind.name: kind for kind in _KINDS}

if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal["auto", *ENGINES]
"""The values of `--engine`."""


def suited_engine(*, gguf: bool, long_run: bool) -> EngineKind | None:
    """The engine that `--engine auto` uses; None if no installed engine loads the model."""
    best = max(_KINDS, key=lambda kind: kind.suitability(gguf=gguf, long_run=long_run))
    return best if best.suitability(gguf=gguf, long_run=long_run) else None
