"""What a run loads: a folder of weights, and perhaps an adapter on top of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datacreate.checkpoints.preset import Preset


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
