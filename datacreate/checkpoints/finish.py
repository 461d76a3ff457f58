"""From what arrived and was checked to a finished folder, beside its place and not yet in it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path

from datacreate.checkpoints import manifest, places
from datacreate.checkpoints.folder import Damaged, check_loadable
from datacreate.checkpoints.hashes import sha256_of, spec
from datacreate.checkpoints.manifest import FileRecord, Manifest
from datacreate.checkpoints.preset import Preset, Source
from datacreate.checkpoints.sources import Arrival
from datacreate.checkpoints.writes import check_gguf_kind
from datacreate.errors import CheckpointError


def assemble(preset: Preset, source: Source, arrival: Arrival, records: dict[str, FileRecord]) -> Path:
    """Link what arrived into `home()/checkpoints/.NAME.new`, with its manifest."""
    folder = places.unfinished(preset.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in records:
        _link(arrival.folder / name, folder / name)
    files = dict(records)
    try:
        if arrival.gguf is not None:
            check_gguf_kind(arrival.folder / arrival.gguf, preset.kind)
        else:
            if not preset.trust_remote_code and _without_remote_code(folder):
                files["config.json"] = _record(folder / "config.json")
            check_loadable(folder, preset.trust_remote_code)
    except Damaged as damage:
        raise CheckpointError(f"{preset.name} from {source.label} is damaged: {damage}") from damage
    manifest.write(
        folder,
        Manifest(
            name=preset.name,
            spec=spec({name: record.sha256 for name, record in records.items()}),
            source=source.label,
            revision=arrival.revision,
            arrived=records,
            files=files,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=_versions(),
        ),
    )
    return folder


def _record(path: Path) -> FileRecord:
    return FileRecord(size=path.stat().st_size, sha256=sha256_of(path))


def _link(source: Path, target: Path) -> None:
    """A second name for the same bytes, so that a kill loses nothing; a copy where there are no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.chmod(0o644)
    try:
        os.link(source, target)
    except PermissionError:
        shutil.copyfile(source, target)
    except OSError as error:
        if error.errno not in (95, 38):  # EOPNOTSUPP, ENOSYS
            raise
        shutil.copyfile(source, target)


def _without_remote_code(folder: Path) -> bool:
    """Drop `auto_map` from config.json, and say whether it was there.

    Some publishers keep it although transformers has had their architecture for long. The code it
    points to is never fetched here; a model that does need it fails in the engine, in words.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False  # check_loadable says it better
    if not isinstance(config, dict) or "auto_map" not in config:
        return False
    del config["auto_map"]
    partial = path.with_suffix(".partial")  # a new file: the old bytes have a second name
    partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return True


def _versions() -> dict[str, str]:
    """Of what took part; a package that is not installed took none."""
    found = {"python": platform.python_version()}
    for package in ("datacreate", "transformers", "torch", "gguf", "safetensors", "huggingface_hub"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
