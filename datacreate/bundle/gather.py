"""What the home has of what a bundle is to carry: checkpoints and benchmarks, file by file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datacreate.benchmarks import find_benchmark, load_registry, read_manifest
from datacreate.benchmarks import manifest as benchmark_manifest
from datacreate.benchmarks import state as benchmark_state
from datacreate.benchmarks import store as benchmark_store
from datacreate.checkpoints import Preset, find_preset, manifest, places
from datacreate.checkpoints.catalogue import own_presets
from datacreate.checkpoints.folder import Damaged
from datacreate.errors import BenchmarkError, CheckpointError

_KINDS = {"instruct": "--model", "encoder": "--encoder"}


@dataclass(frozen=True)
class Item:
    """A file of the home that is to go along."""

    path: str  # within the bundle
    source: Path
    kind: str
    size: int  # bytes
    sha256: str | None = None


def preset_for(name: str, kind: str) -> Preset:
    """The preset; CheckpointError where there is none, or it is for the other thing."""
    preset = find_preset(name)
    if preset.kind != kind:
        raise CheckpointError(
            f"{name} is not for {_KINDS[kind]}: give it with {_KINDS[preset.kind]} "
            "(`datacreate models list` shows which is which)"
        )
    return preset


def of_checkpoint(preset: Preset) -> list[Item]:
    """The files of one that is in the home, and what the home says of it; CheckpointError if damaged."""
    folder = places.finished(preset.name)
    try:
        found = manifest.read(folder)
    except Damaged as damage:
        raise CheckpointError(
            f"checkpoint {preset.name} is damaged ({damage}): run "
            f"`datacreate models pull {preset.name} --force`"
        ) from None
    below = f"checkpoints/{preset.name}"
    items = [
        Item(f"{below}/{name}", folder / name, "checkpoint", record.size, record.sha256)
        for name, record in found.files.items()
    ]
    items.append(_small(f"{below}/{manifest.NAME}", folder / manifest.NAME, "checkpoint"))
    for where, own in (
        ("locks", places.locked_hashes(preset.name)),
        ("presets", own_presets() / f"{preset.name}.yaml"),  # where it was imported
    ):
        if own.is_file():
            items.append(_small(f"{where}/{own.name}", own, "setting"))
    return items


def of_benchmarks(names: tuple[str, ...]) -> list[Item]:
    """The files of imported benchmarks, or of `all`; BenchmarkError where one is not here."""
    if names == ("all",):
        names = tuple(name for name, one in load_registry().items() if benchmark_state(one) != "absent")
        if not names:
            raise BenchmarkError(
                "no benchmark is imported here: run `datacreate benchmarks import DIR`, or leave "
                "--benchmarks out"
            )
    items: list[Item] = []
    for name in names:
        benchmark = find_benchmark(name)
        found = read_manifest(benchmark)
        folder = benchmark_store.folder(benchmark)
        if found is None:
            raise BenchmarkError(
                f"benchmark {name} is not imported: run `datacreate benchmarks import DIR {name}`"
            )
        for split, record in found.splits.items():
            file = f"{split}.jsonl"
            items.append(
                Item(f"benchmarks/{name}/{file}", folder / file, "benchmark", record.size, record.sha256)
            )
        said = benchmark_manifest.NAME
        items.append(_small(f"benchmarks/{name}/{said}", folder / said, "benchmark"))
    return items


def _small(path: str, source: Path, kind: str) -> Item:
    return Item(path, source, kind, source.stat().st_size)
