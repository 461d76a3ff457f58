"""Make a bundle: work out what it takes, fetch what is missing, copy it in, write the manifest last."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datacreate.bundle import closure, project, wheels
from datacreate.bundle.contents import Contents
from datacreate.bundle.filling import Filling, Target, sole
from datacreate.bundle.gather import Item, of_benchmarks, of_checkpoint, preset_for
from datacreate.checkpoints import Progress, pull, silent, state
from datacreate.errors import BundleError, StorageError

_MARGIN_BYTES = 50_000_000  # this project, small files, the file system's own


@dataclass(frozen=True)
class RequestedSettings:
    """What a bundle is to carry."""

    target: Target
    models: tuple[str, ...] = ()  # presets
    encoders: tuple[str, ...] = ()  # presets
    benchmarks: tuple[str, ...] = ()  # names, or "all" that are in the home
    piece_bytes: int | None = None  # larger files are split
    wheels: bool = True


def make(
    folder: Path,
    wishes: RequestedSettings,
    progress: Progress = silent,
    *,
    free_bytes: Callable[[Path], int] = lambda place: shutil.disk_usage(place).free,
) -> Contents:
    """The finished bundle's contents; run again, it goes on from what had arrived.

    Raises BundleError, CheckpointError or BenchmarkError where something cannot be had, StorageError
    where the disk is too small (with the numbers), full or read-only.
    """
    checkout = project.root()
    pinned = wheels.pins(checkout, wishes.target) if wishes.wheels else {}
    presets = [preset_for(name, "instruct") for name in wishes.models]
    presets += [preset_for(name, "encoder") for name in wishes.encoders]
    tests = of_benchmarks(wishes.benchmarks)
    with sole(folder):
        filling = Filling(folder, wishes.target, wishes.piece_bytes)
        absent = [preset for preset in presets if state(preset) != "present"]
        here = [item for preset in presets if preset not in absent for item in of_checkpoint(preset)]
        to_come = sum(preset.size_bytes for preset in absent)
        _require_room(filling, [*here, *tests], to_come, wishes, free_bytes)
        for preset in absent:
            pull(preset, progress)
        items = [item for preset in presets for item in of_checkpoint(preset)] + tests
        _require_room(filling, items, 0, wishes, free_bytes)
        project.add_installer(filling, wishes.target.python)
        _copy(filling, items, progress)
        if wishes.wheels:
            wheels.fetch(filling, pinned, wishes.target, progress)
        project.build(filling, checkout, wheel=wishes.wheels)
        told = _read_wheels(filling, checkout, wishes.target)
        return filling.finish(
            Contents(
                datacreate=importlib.metadata.version("datacreate"),
                platform=wishes.target.platform,
                python=wishes.target.python,
                glibc=told.glibc,
                environment_bytes=told.installed_bytes,
                models=wishes.models,
                entries=(),
            )
        )


def _read_wheels(filling: Filling, checkout: Path, target: Target) -> closure.Told:
    """What the wheels say; BundleError where one requires what is not carried."""
    carried = [entry for entry in filling.entries if entry.kind == "wheel"]
    left_out = wheels.left_out(checkout, target)
    told = closure.read_wheels(filling.folder, carried, wheels.environment(target), left_out)
    if told.unmet:
        more = f" (and {len(told.unmet) - 1} more like that)" if len(told.unmet) > 1 else ""
        raise BundleError(
            f"{filling.folder}: {told.unmet[0]}, which is not carried{more}; a CPU bundle wants a CPU build "
            "of torch in pip's reach (see CONTRIBUTING.md): remove the wheel there, fix that, run this again"
        )
    return told


def _require_room(
    filling: Filling,
    items: list[Item],
    absent: int,
    wishes: RequestedSettings,
    free_bytes: Callable[[Path], int],
) -> None:
    """Before the first byte: what is not there yet against what is free."""
    needed = absent + _MARGIN_BYTES
    needed += sum(item.size for item in items if not filling.bytes_there(item.path))
    if wishes.wheels:
        there = sum(filling.bytes_there(p) for p in filling.paths_before() if p.startswith("wheels/"))
        needed += max(0, wheels.ABOUT_BYTES[wishes.target.platform] - there)
    free = free_bytes(filling.folder)
    if free < needed:
        raise StorageError(
            f"not enough room in {filling.folder}: about {needed / 1e9:.2f} GB are needed and "
            f"{free / 1e9:.2f} GB are free; make room there, or choose another folder, and run "
            "the same command again"
        )


def _copy(filling: Filling, items: list[Item], progress: Progress) -> None:
    total, done = sum(item.size for item in items), 0
    quarter = -1

    def tick(count: int) -> None:
        nonlocal done, quarter
        done += count
        if total and 100 * done // total != quarter:
            quarter = 100 * done // total
            progress("copying", min(done, total), total, "B")

    for item in items:
        if not item.source.is_file():
            raise BundleError(f"{item.source} is missing: bring it into the home again, then run this again")
        filling.add(item.path, item.source, item.kind, item.sha256, tick)
