"""The engines that datacreate can start. To add one, write its module and its line in `ENGINES`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from datacreate.engines.kind import EngineKind
from datacreate.engines.llamacpp import LLAMACPP
from datacreate.engines.vllm import VLLM

ENGINES: dict[str, EngineKind] = {kind.name: kind for kind in (VLLM, LLAMACPP)}

if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal["auto", *ENGINES]
"""The values of `--engine`."""


def suited_engine(*, gguf: bool, long_run: bool) -> EngineKind | None:
    """The engine that `--engine auto` uses; None if no installed engine loads the model."""
    ranks = {kind: kind.suitability(gguf=gguf, long_run=long_run) for kind in ENGINES.values()}
    best = max(ranks, key=ranks.__getitem__)
    return best if ranks[best] else None
