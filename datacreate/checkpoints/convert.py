"""A GGUF as a checkpoint that vLLM and transformers load (safetensors, bfloat16), made once and kept.

    python -m datacreate.checkpoints.convert SOURCE.gguf FOLDER

A process of its own, so that its memory (the tensors in bfloat16, and one in float32) is given
back before an engine starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from datacreate.checkpoints import places
from datacreate.checkpoints.checkpoint import Checkpoint
from datacreate.checkpoints.gguf_file import parts, read_header
from datacreate.checkpoints.progress import Progress, silent
from datacreate.errors import CheckpointError

_LOOK_SECONDS = 0.5
# Tokens by which instruct models end an answer; those that a vocabulary has as special ones
# all stop generation, as its authors' own generation_config.json has it.
_ENDS = (
    "<|endoftext|>",
    "<|im_end|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
)


def dequantised(checkpoint: Checkpoint, progress: Progress = silent) -> Path:
    """The folder of safetensors made from the GGUF of `checkpoint`; made if it is not there yet.

    A checkpoint that is no GGUF is its own folder. Raises CheckpointError for an adapter, for a split GGUF,
    and with the child's last line; StorageError when the disk is full or has no room for it.
    """
    source = checkpoint.gguf
    if source is None:
        return checkpoint.path
    if checkpoint.adapter is not None:
        raise CheckpointError(
            f"{checkpoint.name}: vLLM reads no GGUF adapter; take --engine llamacpp, or give both "
            "as safetensors"
        )
    if len(parts(source)) > 1:
        raise CheckpointError(
            f"{source.name} is one of several parts, which vLLM cannot be given: put them together with "
            "llama.cpp's `llama-gguf-split --merge`, or take --engine llamacpp"
        )

    def make(folder: Path) -> None:
        expected_bytes = 2 * read_header(source).parameters
        places.require_space(expected_bytes, places.free_bytes())
        _convert(source, folder, expected_bytes, progress)

    return places.made_once("dequantised", checkpoint.sha256, make)


def _convert(source: Path, folder: Path, expected_bytes: int, progress: Progress) -> None:
    """Run the conversion in a child and wait; `expected_bytes` is for the progress."""
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, str(source), str(folder)],
        env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    done = 0
    try:
        while True:
            try:
                _, words = child.communicate(timeout=_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                # The child collects the tensors and writes them in one go at the end, so its memory
                # (the GGUF is mapped into it, and counts too) is what moves meanwhile. An estimate:
                # the last tenth is for the writing.
                share = _resident_bytes(child.pid) / (expected_bytes + source.stat().st_size)
                now = int(expected_bytes * 0.9 * min(1.0, share))
                done = max(done, now)
                progress("converting", done, expected_bytes, "B")
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    if child.returncode != 0:
        places.raise_if_disk_full(words)
        lines = [line for line in words.splitlines() if line.strip()]
        killed = "it was killed, most likely for want of memory"
        reason = killed if child.returncode == -9 or not lines else lines[-1].strip()
        raise CheckpointError(f"cannot convert {source.name}: {reason}")
    progress("converting", expected_bytes, expected_bytes, "B")


def _resident_bytes(pid: int) -> int:
    """Memory of a process on Linux; 0 where there is no /proc."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def main(source: Path, folder: Path) -> None:
    """The child process: model, tokenizer with its chat template, generation config."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    # transformers opens the file three times, and each time parses 300,000 vocabulary entries
    # in Python: half of the whole conversion. Once is enough.
    gguf.GGUFReader = cache(_quick_reader(gguf.GGUFReader))

    here: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **here)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True), **here
    )
    context = getattr(model.config, "max_position_embeddings", None)
    if context:
        tokenizer.model_max_length = context  # a GGUF's tokenizer knows no limit
    ends = _end_tokens(tokenizer, model.config.eos_token_id)
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=ends if len(ends) != 1 else ends[0],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # weights are written 0600; a shared home is for all its users


def _quick_reader(reader: type[Any]) -> Callable[[str], Any]:
    """A GGUFReader that slices a plain array: numpy.memmap makes each of its slices a slow object."""
    import numpy as np

    class QuickReader(reader):  # type: ignore[misc]
        data: Any

        def _get(self, *args: Any, **kwargs: Any) -> Any:
            if isinstance(self.data, np.memmap):
                self.data = self.data.view(np.ndarray)
            return super()._get(*args, **kwargs)

    return QuickReader


def _end_tokens(tokenizer: Any, from_gguf: int | list[int] | None) -> list[int]:
    """Ids that end an answer, the one the GGUF names first."""
    ends = from_gguf if isinstance(from_gguf, list) else [] if from_gguf is None else [from_gguf]
    special = {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return list(dict.fromkeys([*ends, *(special[name] for name in _ENDS if name in special)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
