"""Copies of a model that vLLM needs, made once and kept in the data directory.

data_dir()/dequantized/SHA256/   a GGUF as safetensors in bfloat16
data_dir()/merged/SHA256/        base and LoRA adapter in one: on a CPU vLLM applies an adapter very slowly

Each is made in a process of its own, so that its memory is free before the engine starts:
python -m datacreate.checkpoints.convert dequantize|merge SOURCE... FOLDER
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from datacreate.checkpoints.checkpoint import Adapter, Checkpoint
from datacreate.checkpoints.folder import kept_files
from datacreate.checkpoints.gguf import parts
from datacreate.checkpoints.pull import raise_if_disk_full
from datacreate.errors import CheckpointError
from datacreate.files import storage_error
from datacreate.paths import data_dir

# Special tokens that end an answer; a GGUF names only one of them.
_ENDS = (
    "<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>",
)  # fmt: skip


def dequantized(checkpoint: Checkpoint) -> Path:
    """The folder of safetensors of a checkpoint; for a GGUF, a copy made the first time.

    Raises CheckpointError for a GGUF with an adapter, for a split GGUF, and if the conversion fails;
    StorageError if the disk is full.
    """
    source = checkpoint.gguf
    if source is None:
        return checkpoint.path
    if checkpoint.adapter is not None or len(parts(source)) > 1:
        raise CheckpointError(
            f"{source}: vLLM reads no GGUF adapters and no split GGUF; use --engine llamacpp, a model as "
            "safetensors, or join the parts with `llama-gguf-split --merge`"
        )
    return _made_once("dequantize", "dequantized", checkpoint.sha256, source)


def merged(base: Path, adapter: Adapter, sha256: str) -> Path:
    """The folder of base and adapter in one, made the first time; `sha256` identifies the two together.

    Raises CheckpointError if they cannot be merged, StorageError if the disk is full.
    """
    return _made_once("merge", "merged", sha256, base, adapter.path)


def _made_once(verb: str, kind: str, sha256: str, *sources: Path) -> Path:
    from filelock import FileLock

    folder = data_dir() / kind / sha256[:16]
    try:
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if folder.is_dir():  # another process made it meanwhile
                return folder
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            command = [sys.executable, "-m", __name__, verb, *map(str, (*sources, new))]
            child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if child.returncode == 0:
                new.rename(folder)
                return folder
            shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    raise_if_disk_full(child.stderr, folder)
    reason = (child.stderr.strip().splitlines() or ["no reason given"])[-1].strip()
    reason = "the process was killed, probably out of memory" if child.returncode == -9 else reason
    raise CheckpointError(f"cannot {verb} {sources[0].name}: {reason}")


def _dequantize(source: Path, folder: Path) -> None:
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    gguf.GGUFReader = cache(gguf.GGUFReader)  # slow, and transformers would read the file three times
    local: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **local)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True), **local
    )
    if context := getattr(model.config, "max_position_embeddings", None):
        tokenizer.model_max_length = context  # a GGUF's tokenizer knows no limit
    named = model.config.eos_token_id
    ends = named if isinstance(named, list) else [] if named is None else [named]
    special = {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = list(dict.fromkeys([*ends, *(special[name] for name in _ENDS if name in special)]))
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # written as 0600; the data directory may be shared


def _merge(base: Path, adapter: Path, folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        base, dtype="auto", local_files_only=True, trust_remote_code=False
    )
    PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(folder)
    for name, path in kept_files(base).items():  # the tokenizer and its template
        if ".safetensors" not in name and not (folder / name).exists():
            shutil.copyfile(path, folder / name)


if __name__ == "__main__":
    verb, *paths = sys.argv[1:]
    (_merge if verb == "merge" else _dequantize)(*map(Path, paths))
