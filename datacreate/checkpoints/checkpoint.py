"""What a run loads: a folder of weights, and perhaps an adapter on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datacreate.checkpoints.preset import EngineSettings, Preset


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter of PEFT's, in its folder."""

    name: str
    path: Path
    sha256: str
    rank: int
    made_for: str  # the base model's name or path as its maker had it; empty if it does not say


UNSEEN = "served as "
"""What the identity of a model begins with that is only known by the name that a server gives it."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder that transformers and vLLM load, or the name of one that a server has.

    `sha256` is the identity of the model: of what was pulled, or of a local folder as
    `hashes.quick_identity` says, together with that of the adapter; of a served model that is not on
    this machine, UNSEEN and its name. Two checkpoints with the same one are the same model.
    """

    name: str
    path: Path
    sha256: str
    preset: Preset | None
    adapter: Adapter | None = None
    remote_code: bool = False  # its publisher's code may run: its preset and the user both say so

    @property
    def engine_settings(self) -> EngineSettings:
        """How its preset has it loaded; nothing is set where it has none."""
        return self.preset.engine if self.preset else EngineSettings()

    @property
    def chat_template(self) -> Mapping[str, Any]:
        """What its preset has its chat template told."""
        return self.preset.chat_template if self.preset else {}
