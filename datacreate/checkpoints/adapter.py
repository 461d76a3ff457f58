"""A LoRA adapter on top of a checkpoint: read from its folder or GGUF file, and checked against its base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from datacreate.checkpoints.checkpoint import Adapter, Checkpoint
from datacreate.checkpoints.folder import Damaged, check_safetensors
from datacreate.checkpoints.gguf_file import SUFFIX, content_identity, read_header
from datacreate.checkpoints.hashes import quick_identity, spec
from datacreate.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_WHOLE = ("modules_to_save", "use_dora", "lora_bias", "rank_pattern", "alpha_pattern")
"""Settings of an adapter that is more than matrices of one rank, which vLLM does not serve."""


def read_adapter(path: Path) -> Adapter:
    """The adapter in a folder or GGUF file, not yet checked against a base.

    Raises CheckpointError if there is none, it is broken, or it cannot be served.
    """
    path = path.expanduser()
    if path.suffix == SUFFIX:
        return _read_gguf(path)
    if not (path / CONFIG).is_file():
        raise CheckpointError(
            f"{path}: no {CONFIG} in it; --adapter takes a folder that PEFT saved, or a LoRA as a .gguf file"
        )
    return _read_peft(path.resolve())


def _read_gguf(path: Path) -> Adapter:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a LoRA as a .gguf file, or PEFT's folder")
    path = path.resolve()
    try:
        header = read_header(path)
        if header.kind != "adapter" or header.lora_rank is None:
            raise CheckpointError(f"{path}: a GGUF file that is no LoRA adapter; give a model with --model")
        sha256 = content_identity(path)
    except Damaged as damage:
        raise CheckpointError(f"adapter {path} is damaged: {damage}; copy or convert it again") from damage
    return Adapter(path.stem, path, sha256, header.lora_rank, header.base_model or "")


def _read_peft(folder: Path) -> Adapter:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, rank = config["peft_type"], int(config["r"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} is not an adapter's configuration; save it again"
        ) from error
    if kind != "LORA":
        raise CheckpointError(f"{folder}: an adapter of the kind {kind}; only LoRA adapters can be served")
    if also := [name for name in _WHOLE if config.get(name)]:
        raise CheckpointError(
            f"{folder}: an adapter with {also[0]}, which cannot be served beside its base; merge it into the "
            "base (PEFT's merge_and_unload), save that, and give it with --model"
        )
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder}: no {WEIGHTS}; save the adapter again, as safetensors")
    try:
        check_safetensors(folder / WEIGHTS)
    except Damaged as damage:
        raise CheckpointError(f"adapter {folder} is damaged: {damage}; copy or save it again") from damage
    sha256 = quick_identity(folder, [CONFIG, WEIGHTS])
    return Adapter(folder.name, folder, sha256, rank, str(config.get("base_model_name_or_path") or ""))


def with_adapter(base: Checkpoint, adapter: Adapter) -> Checkpoint:
    """The base with the adapter on top: another model. CheckpointError if it was made for another base,
    or is of another file format than its base.
    """
    if base.gguf is not None:
        _check_gguf_pair(base, adapter)
    elif adapter.is_gguf:
        raise CheckpointError(
            f"adapter {adapter.path} is a GGUF file and {base.name} has safetensors: give the folder that "
            "PEFT saved, or the base as a .gguf file with --model"
        )
    else:
        _check_shapes(base, adapter)
    sha256 = spec({"base": base.sha256, "adapter": adapter.sha256})
    return replace(base, name=f"{base.name} with {adapter.name}", sha256=sha256, adapter=adapter)


def _check_gguf_pair(base: Checkpoint, adapter: Adapter) -> None:
    """llama.cpp checks the shapes when it loads them; here only what the headers say."""
    if not adapter.is_gguf:
        raise CheckpointError(
            f"{base.name} is a GGUF file, and adapter {adapter.path} is not: convert it with llama.cpp's "
            "convert_lora_to_gguf.py, or give the base as safetensors with --model (vLLM serves both)"
        )
    header, own = base.gguf_header, read_header(adapter.path)
    if header and header.architecture != own.architecture:
        raise _other_base(base, adapter, f"the base is {header.architecture}, it is for {own.architecture}")


def _check_shapes(base: Checkpoint, adapter: Adapter) -> None:
    """Each pair of matrices must fit the weight it is added to; two bases of one shape are not told apart."""
    own = {_within(name): shape for name, shape in _shapes(base.path, "*.safetensors")}
    quantised = any(name.endswith((".qweight", ".weight_packed")) for name in own)
    pairs: dict[str, dict[str, list[int]]] = {}
    for name, shape in _shapes(adapter.path, WEIGHTS):
        module, _, half = name.partition(".lora_")
        if half[:1] in ("A", "B"):
            pairs.setdefault(_within(module), {})[half[0]] = shape
    if not pairs:
        raise CheckpointError(f"{adapter.path}: no LoRA matrices in {WEIGHTS}; save the adapter again")
    for module, halves in pairs.items():
        weight = own.get(f"{module}.weight")
        if weight is None:
            if quantised:  # packed: its shape says nothing
                continue
            raise _other_base(base, adapter, f"the base has no {module}")
        if len(halves) < 2 or weight != [halves["B"][0], halves["A"][1]]:
            wanted = [halves[half][place] for half, place in (("B", 0), ("A", 1)) if half in halves]
            raise _other_base(base, adapter, f"{module} is {weight} there and {wanted} here")


def _other_base(base: Checkpoint, adapter: Adapter, why: str) -> CheckpointError:
    made_for = f" (it was made for {adapter.made_for})" if adapter.made_for else ""
    return CheckpointError(
        f"adapter {adapter.name} does not fit {base.name}: {why}{made_for}; give its own base with --model"
    )


def _within(name: str) -> str:
    """The part of a weight's name that does not depend on what is wrapped around the layers."""
    at = name.find("layers.")
    return name[at:] if at >= 0 else name.removeprefix("base_model.model.")


def _shapes(folder: Path, pattern: str) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of each tensor in safetensors files, from their headers."""
    for path in sorted(folder.glob(pattern)):
        with path.open("rb") as file:
            header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                yield name, entry["shape"]
