"""Data sets of the Hugging Face Hub: download one, read a copy, map its columns and answers to ours."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datacreate.benchmarks.registry import Benchmark, HubDataset
from datacreate.benchmarks.rows import YES_NO_OPTIONS, BenchmarkRow, row_of
from datacreate.errors import BenchmarkError
from datacreate.formats.example import Json, field_at
from datacreate.libraries import online_environment, user_forbids

_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")


def download(benchmark: Benchmark, hub: HubDataset) -> Path:
    """The folder of a data set in the Hub's cache; its name is the commit. Only the child process goes online.

    Raises BenchmarkError if the Hub cannot serve, saying how to import a copy.
    """
    options = ["--repo-type", "dataset", "--revision", hub.revision]
    if not (reason := user_forbids() and f"{user_forbids()} is set"):
        within = f"*{hub.config}*" if hub.config else "*"
        for suffix in _SUFFIXES:
            options += ["--include", within + suffix]
        command = [sys.executable, "-m", "huggingface_hub.cli.hf", "download", hub.id, *options, "--quiet"]
        environment = online_environment()
        child = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if child.returncode == 0:
            return Path(child.stdout.strip().splitlines()[-1])
        reason = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1][:200]
    raise BenchmarkError(
        f"cannot download {hub.id} ({reason}); on a machine with a network run `hf download {hub.id} --repo-type "
        f"dataset --revision {hub.revision} --local-dir DIR`, copy DIR here, and run `datacreate benchmarks import "
        f"{benchmark.name} --from DIR`"
    )


def read_copy(folder: Path, benchmark: Benchmark, hub: HubDataset) -> dict[str, list[BenchmarkRow]]:
    """The rows of the Hub's splits that the registry names."""
    data = folder / hub.config if hub.config and (folder / hub.config).is_dir() else folder
    return {
        split: [
            _row(values, f"{data}: {split}, row {number}", benchmark, hub)
            for number, values in enumerate(rows, 1)
        ]
        for split, rows in _read(data, hub).items()
    }


def _read(data: Path, hub: HubDataset) -> dict[str, list[Any]]:
    """The rows of the splits in a folder, as they are there."""
    import datasets

    if not any(path.suffix in _SUFFIXES for path in data.rglob("*")):
        raise BenchmarkError(f"{data}: no {', '.join(_SUFFIXES)} file; give a copy of {hub.id}")
    datasets.logging.set_verbosity(datasets.logging.CRITICAL + 1)  # errors are reported below
    found = {}
    with tempfile.TemporaryDirectory() as cache:  # keeps no second copy in the user's cache
        try:
            splits = datasets.load_dataset(str(data), cache_dir=cache, streaming=True)
            for split in filter(splits.__contains__, hub.splits):
                found[split] = list(splits[split])
        except Exception:  # noqa: BLE001 (the library has no common error for damaged files)
            raise BenchmarkError(f"{data}: cannot be read; give a complete copy of {hub.id}") from None
    if missing := [split for split in hub.splits if split not in found]:
        raise BenchmarkError(
            f"{data}: no split {missing[0]!r}; a copy of {hub.id} has {', '.join(hub.splits)}"
        )
    return found


def _row(values: Mapping[str, Json], where: str, benchmark: Benchmark, hub: HubDataset) -> BenchmarkRow:
    try:
        return row_of(_mapped(values, hub), benchmark)
    except ValueError as error:
        raise BenchmarkError(f"{where}: {error}; is it a copy of {hub.id}?") from None


def _mapped(values: Mapping[str, Json], hub: HubDataset) -> dict[str, Json]:
    """A row of the Hub in our columns."""
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


def _answer(value: Json, options: list[Json], keys: Json, hub: HubDataset) -> Json:
    """The text of the right option; in yes/no sets a word or a boolean."""
    if value is None or value in ("", -1, "-1"):
        raise ValueError("its answer is hidden")
    if hub.answer == "truth":
        return False if value in hub.falsehoods else value
    try:
        index = list(keys).index(value) if hub.answer == "key" else int(value) - (hub.answer == "number")
    except (TypeError, ValueError):
        index = -1
    if not 0 <= index < len(options):
        raise ValueError(f"the answer {str(value)[:40]!r} names none of the {len(options)} options")
    return options[index]


def _at(values: Mapping[str, Json], path: str) -> Any:
    try:
        return field_at(values, tuple(path.split(".")))
    except (KeyError, TypeError):
        raise ValueError(f"no column {path!r}; the columns are {', '.join(map(str, values))}") from None
