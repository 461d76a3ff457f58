"""VectorFile in a file and in memory: what is read back, and what a kill or a full disk leaves."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.errors import StorageError
from datacreate.selection.accepted_vectors import VectorFile, to_float16, to_float64

ROWS = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)


@pytest.mark.parametrize("name", [None, "vectors.f16"])
def test_rows_are_read_back_rounded(tmp_path: Path, name: str | None) -> None:
    vectors = VectorFile(8, tmp_path / name if name else None)
    assert len(vectors) == 0
    for begin in range(0, 3000, 7):
        vectors.append(ROWS[begin : begin + 7])
        assert (vectors[begin] == to_float16(ROWS[begin])).all()
    assert len(vectors) == 3000
    assert (vectors.between(0, 3000) == to_float16(ROWS)).all()
    assert (vectors[2999] == to_float16(ROWS[-1])).all()
    vectors.append(ROWS[0])  # one row, not in a matrix
    assert len(vectors) == 3001


@given(st.integers(0, 200), st.none() | st.integers(0, 20))
def test_incomplete_and_surplus_rows_are_cut_off(
    tmp_path_factory: pytest.TempPathFactory, size: int, max_rows: int | None
) -> None:
    path = tmp_path_factory.mktemp("vectors") / "vectors.f16"
    path.write_bytes(to_float16(ROWS[:20]).tobytes()[:size])
    vectors = VectorFile(8, path, max_rows)
    rows = min(size // 16, 20 if max_rows is None else max_rows)
    assert len(vectors) == rows
    assert path.stat().st_size == 16 * rows
    vectors.append(ROWS[rows])
    assert path.read_bytes() == to_float16(ROWS[: rows + 1]).tobytes()


def test_zero_rows_at_the_end_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "vectors.f16"
    path.write_bytes(to_float16(ROWS[:5]).tobytes() + bytes(16 * 3 + 5))
    vectors = VectorFile(8, path)
    assert len(vectors) == 5


def test_a_full_disk_leaves_no_partial_row(tmp_path: Path) -> None:
    path = tmp_path / "vectors.f16"
    vectors = VectorFile(8, path)
    vectors.append(ROWS[:3])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 16 + 20, limits[1]))  # a row and a part of the next
    try:
        with pytest.raises(StorageError, match=r"vectors\.f16: the disk is full"):
            vectors.append(ROWS[3:6])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(vectors) == 3
    vectors.append(ROWS[3:4])
    assert path.read_bytes() == to_float16(ROWS[:4]).tobytes()


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"vectors\.f16"):
        VectorFile(8, tmp_path / "absent" / "vectors.f16")


@given(st.integers(0, 2**32 - 1))
def test_dot_products_do_not_depend_on_the_order_of_summation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2, 384))
    one, other = to_float64(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    shuffled = rng.permutation(384)
    assert float(one @ other) == float(one[shuffled] @ other[shuffled]) == sum((one * other).tolist())
