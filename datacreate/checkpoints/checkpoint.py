"""What a run loads: a model by preset, Hub id, folder or GGUF file, and perhaps a LoRA adapter."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from datacreate.checkpoints.folder import check_loadable, combined_sha256, kept_files, quick_hash, read_json
from datacreate.checkpoints.gguf import SUFFIX, GgufFile, dequantized, gguf_in, parts, read_gguf
from datacreate.checkpoints.presets import HUB_ID, ModelKind, Preset, Thinking, find_sources, load_presets, preset_files
from datacreate.checkpoints.pull import find_local
from datacreate.errors import CheckpointDamaged, CheckpointError, NotDownloaded, UnknownModel, UsageError
from datacreate.files import expand_home
from datacreate.messages import Notify, no_notify

SERVED_AS = "served as "
"""Prefix of the `sha256` of a model that is known only by the name that its server uses."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: the folder that PEFT saved, or a GGUF file (for a GGUF base)."""

    name: str
    path: Path
    sha256: str
    rank: int  # 0 for a GGUF file


@dataclass(frozen=True)
class Checkpoint:
    """A folder of safetensors (transformers, vLLM), a GGUF file (llama.cpp), or a served model's name.

    `path` is the folder, also that of a GGUF file. `sha256` identifies the model and its adapter:
    `quick_hash` of its files; SERVED_AS and its name for a served model that is not on this machine. Two
    checkpoints with the same one are the same model.
    """

    name: str
    path: Path
    sha256: str
    preset: Preset | None
    adapter: Adapter | None = None
    trust_remote_code: bool = False  # the publisher's Python code may run
    gguf: GgufFile | None = None

    @property
    def thinking(self) -> Thinking | None:
        """How it thinks, from the preset; None if it does not, or if there is no preset."""
        return self.preset.thinking if self.preset else None

    @property
    def always_thinks(self) -> bool:
        """Whether its thinking cannot be switched off."""
        return self.thinking is not None and self.thinking.disable is None

    def check_can_score(self) -> None:
        """Raise UsageError if it cannot score labels: scores are those of the first token of an answer."""
        if self.always_thinks:
            raise UsageError(
                f"{self.name} always thinks before it answers, so it cannot score labels by their first tokens; use "
                "another model as --verifier (or create with --verify off)"
            )

    def safetensors_folder(self, notify: Notify = no_notify) -> Path:
        """The folder of its safetensors; for a GGUF file, that of a copy, which is made the first time.

        Raises CheckpointError for a GGUF file with an adapter, for a split one, and if the conversion fails;
        StorageError if the disk is full.
        """
        if self.gguf is None:
            return self.path
        if self.adapter is not None or len(parts(self.gguf.path)) > 1:
            raise CheckpointError(
                f"{self.gguf.path}: vLLM reads no GGUF adapters and no split GGUF; use --engine llamacpp, a model as "
                "safetensors, or join the parts with `llama-gguf-split --merge`"
            )
        return dequantized(self.gguf.path, self.name, self.sha256, notify)


def resolve(name_or_path: str, kind: ModelKind, *, trust_remote_code: bool = False) -> Checkpoint:
    """Find and check a checkpoint without a network: names, sizes and headers, not contents.

    `name_or_path` is a preset, an existing folder (safetensors or one GGUF model), a `.gguf` file, or a
    Hub id (`org/name`, `org/name@revision`) in the Hub cache. Raises CheckpointError: unknown, not downloaded,
    of the other kind, incomplete, or in need of its publisher's code without `trust_remote_code`.
    """
    if not name_or_path.strip():
        raise UnknownModel("the name of a model is empty; give a preset, a Hub id or a folder")
    location, is_preset = expand_home(name_or_path), name_or_path.lower() in preset_files()
    is_path = name_or_path.startswith((".", "~", os.sep)) or name_or_path.endswith(SUFFIX)
    if is_path or (location.is_dir() and not is_preset):
        if not location.exists():
            missing = "file" if location.suffix == SUFFIX else "folder"
            raise UnknownModel(f"{location}: no such {missing}; correct the path, or give a preset")
        return _checkpoint_at(_absolute(location), "", None, kind, trust_remote_code=trust_remote_code)
    if location.is_file() and not is_preset:
        raise UnknownModel(f"{location}: not a model file; give a .gguf file, a folder of safetensors, or a preset")
    preset, sources = find_sources(name_or_path)
    name = preset.name if preset and not HUB_ID.fullmatch(name_or_path) else name_or_path
    if preset and preset.kind != kind:
        raise UnknownModel(f"{name} is an {preset.kind} model; give an {kind} model (see `models list`)")
    local = find_local(preset.name if preset else name, sources)
    if local is None:
        presets = [preset for preset in load_presets().values() if preset.kind == kind]
        pulled = [preset.name for preset in presets if find_local(preset.name, preset.sources)]
        alternative = f", or choose one that is: {', '.join(pulled)}" if pulled else ""
        raise NotDownloaded(f"{name} is not downloaded: run `datacreate models pull {name}`{alternative}")
    try:
        return _checkpoint_at(local, name, preset, kind, trust_remote_code=trust_remote_code)
    except CheckpointDamaged as error:
        raise CheckpointDamaged(f"{error}: `datacreate models pull {name} --force`") from None


def _checkpoint_at(
    location: Path, name: str, preset: Preset | None, kind: ModelKind, *, trust_remote_code: bool
) -> Checkpoint:
    """The checkpoint in a folder or GGUF file; without a name it is named after that."""
    gguf_path = location if location.is_file() else None
    if gguf_path is None and not any(location.glob("*.safetensors")):
        gguf_path = gguf_in(location)
    if gguf_path is not None:
        if kind == "encoder":
            raise CheckpointError(f"{gguf_path}: a GGUF file; an encoder must be a folder of safetensors")
        gguf = read_gguf(gguf_path)
        if gguf.general_type != "model":
            raise CheckpointError(
                f"{gguf_path}: a GGUF file of type {gguf.general_type}, not a language model; give its base with "
                "--model, and a LoRA adapter with --adapter"
            )
        sha256 = quick_hash({str(number): part for number, part in enumerate(parts(gguf_path))})
        return Checkpoint(name or gguf.model_name, gguf_path.parent, sha256, preset, gguf=gguf)
    check_loadable(location, kind, trust_remote_code=trust_remote_code)
    sha256 = quick_hash(kept_files(location))
    return Checkpoint(name or location.name, location, sha256, preset, trust_remote_code=trust_remote_code)


def _absolute(location: Path) -> Path:
    """The absolute path. Links to files are not followed: those of the Hub cache lead to files without a suffix."""
    return location.resolve() if location.is_dir() else location.parent.resolve() / location.name


def find_served_checkpoint(name_or_path: str) -> Checkpoint:
    """The model of a server: its checkpoint if that is also on this machine, else only its name."""
    try:
        preset, _ = find_sources(name_or_path)
    except CheckpointError:
        preset = None
    try:
        return resolve(name_or_path, "instruct", trust_remote_code=True)
    except CheckpointError:
        return Checkpoint(name_or_path, Path(name_or_path), SERVED_AS + name_or_path, preset)


def read_adapter(path: Path) -> Adapter:
    """The LoRA adapter in a folder or GGUF file. CheckpointError if there is none."""
    path = _absolute(expand_home(path))
    try:
        if path.suffix == SUFFIX:
            if read_gguf(path).general_type != "adapter":
                raise CheckpointError(f"{path}: a GGUF file, but not a LoRA adapter; give a model with --model")
            return Adapter(path.stem, path, quick_hash({"0": path}), 0)
        config = read_json(path / "adapter_config.json")
        if config["peft_type"] != "LORA" or config.get("use_dora") or config.get("modules_to_save"):
            raise CheckpointError(
                f"{path}: only plain LoRA adapters can be served (no DoRA, no modules_to_save); merge it into its "
                "base (PEFT's merge_and_unload), and give the result with --model"
            )
        files = {name: path / name for name in ("adapter_config.json", "adapter_model.safetensors")}
        return Adapter(path.name, path, quick_hash(files), int(config["r"]))
    except FileNotFoundError as error:
        raise UnknownModel(
            f"{error.filename}: no such file; --adapter takes a folder that PEFT saved, or a .gguf LoRA"
        ) from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: adapter_config.json cannot be read ({error}); save it again") from error


def with_adapter(base: Checkpoint, adapter: Adapter) -> Checkpoint:
    """The model of a base with an adapter.

    Raises CheckpointError if base and adapter have different file formats. Architecture and shapes are checked
    by the engine.
    """
    if (adapter.path.suffix == SUFFIX) != (base.gguf is not None):
        raise CheckpointError(
            f"adapter {adapter.path} does not fit {base.name}: llama.cpp needs GGUF for both "
            "(convert_lora_to_gguf.py), vLLM safetensors for both"
        )
    sha256 = combined_sha256({"base": base.sha256, "adapter": adapter.sha256})
    return replace(base, name=f"{base.name} with {adapter.name}", sha256=sha256, adapter=adapter)
