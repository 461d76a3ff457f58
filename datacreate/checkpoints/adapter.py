"""A LoRA adapter on top of a checkpoint: read from its folder, and held against its base by shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from datacreate.checkpoints.checkpoint import Adapter, Checkpoint
from datacreate.checkpoints.folder import Damaged, check_safetensors
from datacreate.checkpoints.hashes import identity, quick_identity
from datacreate.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_WHOLE = ("modules_to_save", "use_dora", "lora_bias", "rank_pattern", "alpha_pattern")
"""Settings of an adapter that is more than matrices of one rank, which vLLM does not serve."""


def read_adapter(folder: Path) -> Adapter:
    """The adapter in a folder, not yet held against a base.

    Raises CheckpointError if there is none, it is broken, or it cannot be served.
    """
    folder = folder.expanduser()
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: no {CONFIG} in it; --adapter takes the folder that PEFT saved")
    folder = folder.resolve()
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
    """The base with the adapter on top: another model. CheckpointError if it was made for another base.

    Weights tell: each pair of matrices must fit the weight it is added to. Two bases of one shape
    are not told apart.
    """
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
    sha256 = identity({"base": base.sha256, "adapter": adapter.sha256})
    return replace(base, name=f"{base.name} with {adapter.name}", sha256=sha256, adapter=adapter)


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
