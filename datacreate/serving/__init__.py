"""Which checkpoints a run needs, and the engines that serve them.

serving/
  models.py      what writes, what verifies, what embeds: checkpoints
  engines.py     an engine for each, started and closed together
  here.py        vLLM on this machine, as many copies as it has GPUs for
  elsewhere.py   servers
  seat.py        an engine's place among those of a run
"""

from __future__ import annotations

from datacreate.serving.engines import Engines, engines_of, note_of_base
from datacreate.serving.here import loading_to_serve, vllm_engine
from datacreate.serving.models import Models, models_of, verify_mode
from datacreate.serving.seat import EngineFactory, Seat

__all__ = [
    "EngineFactory",
    "Engines",
    "Models",
    "Seat",
    "engines_of",
    "loading_to_serve",
    "models_of",
    "note_of_base",
    "verify_mode",
    "vllm_engine",
]
