"""Converts GGUF files to safetensors in bfloat16, for vLLM and only once: data_dir()/dequantized/SHA256.

The conversion runs in a process of its own, so that its memory is free before the engine starts.

    python -m datacreate.checkpoints.dequantize FILE FOLDER
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from datacreate.checkpoints.checkpoint import Checkpoint
from datacreate.checkpoints.gguf import parts
from datacreate.checkpoints.pull import raise_if_disk_full
from datacreate.errors import CheckpointError
from datacreate.files import atomic_replacement, data_dir, remove_temporary, storage_error
from datacreate.messages import Notify, no_notify


def dequantized(checkpoint: Checkpoint, notify: Notify = no_notify) -> Path:
    """The folder of safetensors of a checkpoint; for a GGUF, a copy made the first time.

    Raises CheckpointError for a GGUF with an adapter, for a split GGUF, and if the conversion fails;
    StorageError if the disk is full.
    """
    from filelock import FileLock

    if checkpoint.gguf is None:
        return checkpoint.path
    source = checkpoint.gguf.path
    if checkpoint.adapter is not None or len(parts(source)) > 1:
        raise CheckpointError(
            f"{source}: vLLM reads no GGUF adapters and no split GGUF; use --engine llamacpp, a model as "
            "safetensors, or join the parts with `llama-gguf-split --merge`"
        )
    folder = data_dir() / "dequantized" / checkpoint.sha256[:16]
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    with FileLock(folder.parent.with_suffix(".lock")):
        remove_temporary(folder.parent)
        if folder.is_dir():  # another process made it meanwhile
            return folder
        notify(f"converting {checkpoint.name}, since vLLM reads no GGUF files (once)")
        with atomic_replacement(folder) as new:
            command = [sys.executable, "-m", __name__, str(source), str(new)]
            child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if child.returncode:
                raise_if_disk_full(child.stderr, folder)
                reason = (child.stderr.strip().splitlines() or ["killed, probably out of memory"])[-1].strip()
                problem = f"cannot convert {source.name} for vLLM: {reason}"
                raise CheckpointError(f"{problem}; use --engine llamacpp")
    return folder


def _convert(source: Path, folder: Path) -> None:
    """Write the safetensors and the tokenizer of a GGUF file into a folder."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf.GGUFReader = cache(gguf.GGUFReader)  # slow, and transformers would read the file three times
    local: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **local)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True), **local
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # written as 0600; the data directory may be shared


if __name__ == "__main__":
    _convert(*map(Path, sys.argv[1:]))
