"""Checkpoints: which models there are, how to download them, and which one a name or path means.

presets.py     models/*.yaml: sources, engine settings, sampling
pull.py        download a preset or a Hub id (hub.py: the process that goes online)
checkpoint.py  name, Hub id, folder or .gguf file -> Checkpoint; LoRA adapters
folder.py      checks and identity of folders of safetensors
gguf.py        parts and headers of GGUF files
dequantize.py  GGUF files as safetensors, for vLLM
"""

from __future__ import annotations

from datacreate.checkpoints.checkpoint import UNSEEN, Checkpoint, read_adapter, resolve, served_checkpoint, with_adapter
from datacreate.checkpoints.folder import combined_sha256
from datacreate.checkpoints.presets import LaunchSettings, Preset, Thinking, find_preset, find_sources, load_presets
from datacreate.checkpoints.pull import find_local, pull

__all__ = [
    "UNSEEN", "Checkpoint", "LaunchSettings", "Preset", "Thinking", "combined_sha256", "find_local", "find_preset",
    "find_sources", "load_presets", "pull", "read_adapter", "resolve", "served_checkpoint", "with_adapter",
]  # fmt: skip
