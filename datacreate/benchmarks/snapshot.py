"""A data set of the Hugging Face Hub as files on disk: find them, read them, map columns and answers."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datacreate.benchmarks.registry import Benchmark, HubSource
from datacreate.benchmarks.rows import YES_NO_OPTIONS, Row, row_of
from datacreate.errors import BenchmarkError
from datacreate.formats.example import Json, field_at

READERS = {".parquet": "from_parquet", ".jsonl": "from_json", ".json": "from_json", ".csv": "from_csv"}
"""File endings, the best first -> the reader of `datasets.Dataset`."""

_NAMES = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test"},
}
"""What files and folders call the Hub's splits."""

_NO_DATA = {"dataset_infos.json", "dataset_info.json", "state.json", "dataset_dict.json"}


def read_snapshot(folder: Path, benchmark: Benchmark, hub: HubSource) -> dict[str, list[Row]]:
    """The rows of those of the Hub's splits that the registry names, by the Hub's name.

    Raises BenchmarkError, in one line, if there are no data files, a split or a column is not there, or a
    row is no row of this benchmark (an answer that is hidden, say).
    """
    if not folder.is_dir():
        raise BenchmarkError(f"{folder}: no such folder; give the folder of a copy of {hub.id}")
    raw = _saved(folder, hub) or _from_files(folder, hub)
    if absent := [split for split in hub.splits if split not in raw]:
        raise BenchmarkError(
            f"{folder}: no files of the split {absent[0]!r}; a copy of {hub.id} has {', '.join(hub.splits)}"
        )
    return {
        split: [_row(folder, split, n, one, benchmark, hub) for n, one in enumerate(raw[split], 1)]
        for split in hub.splits
    }


def _saved(folder: Path, hub: HubSource) -> dict[str, Iterable[Any]] | None:
    """What `save_to_disk` wrote; None if the folder is something else."""
    if not ((folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()):
        return None
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(folder, error) from None
    if not isinstance(found, dict):
        found = {str(found.split or next(iter(hub.splits))): found}
    return {_split_in(name) or name: rows for name, rows in found.items()}


def _from_files(folder: Path, hub: HubSource) -> dict[str, Iterable[Any]]:
    files = _data_files(folder, hub)
    by_split: dict[str, list[Path]] = {}
    for path in files:
        parts = path.relative_to(folder).parts
        split = next((found for part in reversed(parts) if (found := _split_in(part))), None)
        if split is None and len(files) == len(hub.splits) == 1:
            split = next(iter(hub.splits))
        if split is not None and split in hub.splits:
            by_split.setdefault(split, []).append(path)
    return {split: _read(paths) for split, paths in by_split.items()}


def _data_files(folder: Path, hub: HubSource) -> list[Path]:
    """The data files of the configuration, all of one kind."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in READERS
        and path.name not in _NO_DATA
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    kinds = [suffix for suffix in READERS if any(path.suffix == suffix for path in found)]
    if not kinds:
        raise BenchmarkError(
            f"{folder}: no {', '.join(READERS)} file in it; give the folder of a copy of {hub.id}"
        )
    files = [path for path in found if path.suffix == kinds[0]]
    if hub.config is not None:
        configured = [p for p in files if any(hub.config in part for part in p.relative_to(folder).parts)]
        files = configured or files
    return files


def _split_in(name: str) -> str | None:
    """Which of the Hub's splits a file's or a folder's name means."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    meant = [split for split, names in _NAMES.items() if words & names]
    return meant[0] if len(meant) == 1 else None


def _read(paths: list[Path]) -> list[Any]:
    import datasets

    datasets.disable_progress_bars()
    read = getattr(datasets.Dataset, READERS[paths[0].suffix])
    # A folder of our own: the library would keep a second copy of every set among the user's files.
    with tempfile.TemporaryDirectory(prefix="datacreate-snapshot-") as cache:
        try:
            rows = read([str(path) for path in paths], cache_dir=cache, keep_in_memory=True)
            return list(rows)
        except (OSError, ValueError, TypeError, datasets.exceptions.DatasetsError) as error:
            raise _unreadable(paths[0], error) from None


def _unreadable(path: Path, error: Exception) -> BenchmarkError:
    said = " ".join(str(error.__cause__ or error).split())[:200]
    return BenchmarkError(f"{path}: cannot be read ({said}); copy it again")


def _row(folder: Path, split: str, number: int, values: Json, benchmark: Benchmark, hub: HubSource) -> Row:
    try:
        return row_of(_mapped(values, hub), benchmark)
    except ValueError as error:
        raise BenchmarkError(
            f"{folder}: {split}, row {number}: {error}; is it a copy of {hub.id}"
            f"{f' ({hub.config})' if hub.config else ''}?"
        ) from None


def _mapped(values: Mapping[str, Json], hub: HubSource) -> dict[str, Json]:
    """The Hub's row in the reference's columns."""
    columns = hub.columns
    options: list[Json] = YES_NO_OPTIONS
    if isinstance(columns.options, str):
        options = list(_at(values, columns.options))
    elif columns.options is not None:
        options = [_at(values, name) for name in columns.options]
    context = None if columns.context is None else _at(values, columns.context)
    if isinstance(context, list):
        context = " ".join(map(str, context))
    keys = _at(values, columns.option_keys) if columns.option_keys else None
    label = _answer(_at(values, columns.label), options, keys, hub)
    return {"question": _at(values, columns.question), "context": context, "options": options, "label": label}


def _answer(told: Json, options: list[Json], keys: Json, hub: HubSource) -> Json:
    """The option's text, or the boolean, that the answer column means."""
    if told is None or told in ("", -1, "-1"):
        raise ValueError("its answer is hidden")
    if hub.answer == "truth":
        word = str(told).strip().lower()
        if isinstance(told, bool) or word in hub.truths + hub.falsehoods:
            return told if isinstance(told, bool) else word in hub.truths
        raise ValueError(f"the answer {word[:40]!r} is none of {', '.join(hub.truths + hub.falsehoods)}")
    try:
        place = list(keys).index(told) if hub.answer == "key" else int(told) - (hub.answer == "number")
    except (TypeError, ValueError):
        place = -1
    if not 0 <= place < len(options):
        raise ValueError(f"the answer {str(told)[:40]!r} names none of the {len(options)} options")
    return options[place]


def _at(values: Mapping[str, Json], dotted: str) -> Json:
    try:
        return field_at(values, tuple(dotted.split(".")))
    except (KeyError, TypeError):
        raise ValueError(f"no column {dotted!r}; there are {', '.join(map(str, values))}") from None
