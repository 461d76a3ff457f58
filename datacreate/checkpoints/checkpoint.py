"""What a run loads: a folder of safetensors or a GGUF file, and perhaps an adapter on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datacreate.checkpoints.gguf_file import GgufHeader, read_header
from datacreate.checkpoints.preset import EngineSettings, Preset


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: the folder that PEFT saved, or a GGUF file (for a GGUF base)."""

    name: str
    path: Path
    sha256: str
    rank: int
    made_for: str  # the base model's name or path as its maker had it; empty if it does not say

    @property
    def is_gguf(self) -> bool:
        return self.path.suffix == ".gguf"


UNSEEN = "served as "
"""What the identity of a model begins with that is only known by the name that a server gives it."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder of safetensors (transformers and vLLM load it), a GGUF file (llama.cpp loads it), or the
    name of a model that a server has.

    `gguf` is the GGUF file, of a split one the first part; `path` is then its folder. `sha256` is the
    identity of the model: of what was pulled, or of local files as `hashes.quick_identity` or
    `gguf_file.content_identity` says, together with that of the adapter; of a served model that is not on
    this machine, UNSEEN and its name. Two checkpoints with the same one are the same model.
    """

    name: str
    path: Path
    sha256: str
    preset: Preset | None
    adapter: Adapter | None = None
    trust_remote_code: bool = False  # its publisher's code may run: its preset and the user both say so
    gguf: Path | None = None

    @cached_property
    def gguf_header(self) -> GgufHeader | None:
        """What the GGUF says about itself; None for safetensors. Reading it takes about 50 ms."""
        return read_header(self.gguf) if self.gguf else None

    @property
    def engine_settings(self) -> EngineSettings:
        """How its preset has it loaded; nothing is set where it has none."""
        return self.preset.engine if self.preset else EngineSettings()

    @property
    def chat_template(self) -> Mapping[str, Any]:
        """What its preset has its chat template told."""
        return self.preset.chat_template if self.preset else {}
