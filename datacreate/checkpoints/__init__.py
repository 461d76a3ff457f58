"""Checkpoints: which models there are, how they get here, and whether they are whole.

A *preset* (`models/*.yaml`) names where a model comes from, in order of preference, and
what must arrive. `pull` fetches it into the home, `verify` hashes every byte of it again,
and `resolve` is what a run calls: cheap, offline, and refusing anything doubtful.

    checkpoints/
      preset.py      what a preset says, typed
      catalogue.py   load the presets, find one by name
      places.py      where things lie in the home; a full or read-only disk becomes one line
      progress.py    how a long step tells how far it is
      folder.py      is this folder a checkpoint that loads without running foreign code?
      gguf_file.py   is this GGUF file whole, and what does its header say?
      writes.py      does it write text, as it says itself?
      manifest.py    what lies in a finished folder: names, sizes, hashes
      sources/       a module per kind of source: packages, hub, path
      convert.py     GGUF -> safetensors for vLLM, on demand, in a process of its own
      importing.py   a GGUF file or folder of the user's own becomes a preset
      pull.py        lock, fetch, check, put in place
      verify.py      every byte against the manifest, the manifest against the preset
      resolve.py     a name, folder or .gguf file -> Checkpoint
      merge.py       base and adapter in one
      adapter.py     a LoRA adapter on top of one
      checkpoint.py  both, typed
"""

from __future__ import annotations

from datacreate.checkpoints.adapter import read_adapter, with_adapter
from datacreate.checkpoints.catalogue import find_preset, load_presets
from datacreate.checkpoints.checkpoint import UNSEEN, Adapter, Checkpoint
from datacreate.checkpoints.convert import dequantised
from datacreate.checkpoints.gguf_file import GgufHeader, read_header
from datacreate.checkpoints.importing import import_model
from datacreate.checkpoints.merge import merged
from datacreate.checkpoints.preset import EngineSettings, Preset, Sampling
from datacreate.checkpoints.progress import Progress, silent
from datacreate.checkpoints.pull import pull
from datacreate.checkpoints.resolve import resolve, served
from datacreate.checkpoints.verify import State, VerifyReport, state, verify

__all__ = [
    "UNSEEN",
    "Adapter",
    "Checkpoint",
    "EngineSettings",
    "GgufHeader",
    "Preset",
    "Progress",
    "Sampling",
    "State",
    "VerifyReport",
    "dequantised",
    "find_preset",
    "import_model",
    "load_presets",
    "merged",
    "pull",
    "read_adapter",
    "read_header",
    "resolve",
    "served",
    "silent",
    "state",
    "verify",
    "with_adapter",
]
