"""Small benchmarks in the folder structure of the paper's repository, and a data directory for every test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from datacreate.benchmarks import Benchmark, find_benchmark, import_benchmark

Row = dict[str, Any]


def claims(count: int, first: int = 0) -> list[Row]:
    """Rows of a closed-book yes/no set."""
    same = {"context": None, "options": ["True", "False"]}
    numbers = range(first, first + count)
    return [{"question": f"Lighthouse {i} is older than its keeper.", **same, "label": i % 3 == 0} for i in numbers]


def passages(count: int, first: int = 0) -> list[Row]:
    """Rows of an open-book yes/no set."""
    return [{**row, "context": f"It was built in 18{10 + i}."} for i, row in enumerate(claims(count, first))]


def choices(count: int, options: int = 5, first: int = 0) -> list[Row]:
    """Rows of a multiple-choice set; the position of the right option differs."""
    rows = []
    for i in range(first, first + count):
        texts = [f"shelf {i}-{k}" for k in range(options)]
        row = {"question": f"Where does box {i} stand?", "context": None, "options": texts}
        rows.append({**row, "label": texts[i % options]})
    return rows


def lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "surrogatepass")


def write_reference(folder: Path, name: str, splits: Mapping[str, Sequence[Row] | bytes]) -> Path:
    """Files of one benchmark where the reference has them; returns `folder`."""
    place = folder / find_benchmark(name).source.reference
    place.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (place / f"{split}.jsonl").write_bytes(rows if isinstance(rows, bytes) else lines(rows))
    return folder


def imported(folder: Path, name: str, splits: Mapping[str, Sequence[Row] | bytes]) -> Benchmark:
    """Import a small benchmark."""
    benchmark = find_benchmark(name)
    import_benchmark(benchmark, write_reference(folder, name, splits), allow_count_mismatch=True)
    return benchmark


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "home"
    monkeypatch.setenv("DATACREATE_HOME", str(place))
    return place
