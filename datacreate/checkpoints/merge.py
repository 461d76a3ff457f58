"""Base and LoRA adapter in one checkpoint, made once and kept in the home.

    python -m datacreate.checkpoints.merge BASE ADAPTER FOLDER

On a CPU vLLM gathers an adapter's matrices anew for every token of every layer, which is many times
slower than the model itself; merged, it costs nothing. A process of its own, so that its memory is given
back before the engine starts.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from datacreate.checkpoints import places
from datacreate.checkpoints.checkpoint import Adapter
from datacreate.checkpoints.folder import is_kept
from datacreate.errors import CheckpointError


def merged(base: Path, adapter: Adapter, sha256: str) -> Path:
    """The folder of the two in one, whose identity is `sha256`; made if it is not there yet.

    Raises CheckpointError with the child's last line, StorageError when the disk is full.
    """
    return places.made_once("merged", sha256, lambda folder: _merge(base, adapter, folder))


def _merge(base: Path, adapter: Adapter, folder: Path) -> None:
    command = [sys.executable, "-m", __name__, str(base), str(adapter.path), str(folder)]
    child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if child.returncode:
        places.raise_if_disk_full(child.stderr)
        lines = [line.strip() for line in child.stderr.splitlines() if line.strip()]
        why = (
            "it was killed, most likely for want of memory"
            if child.returncode == -9
            else (lines or ["?"])[-1]
        )
        raise CheckpointError(
            f"cannot put the adapter {adapter.name} on top of {base.name}: {why}; merge them "
            "elsewhere (PEFT's merge_and_unload) and give the result with --model"
        )
    for path in base.iterdir():  # the tokenizer and its template
        weights = path.name.endswith((".safetensors", ".safetensors.index.json"))
        if is_kept(path.name) and not weights and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def main(base: str, adapter: str, folder: str) -> None:
    """The child process."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
