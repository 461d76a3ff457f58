"""The vectors of accepted examples: what is read back, and what damage, a kill or a full disk leaves."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.errors import StorageError
from datacreate.selection.embeddings import PassedVectors, rounded_to_float16, to_float16
from tests.filters.texts import HashedWords

TEXTS = [f"text {number}" for number in range(20)]


def filled(path: Path | None) -> tuple[PassedVectors, list[str]]:
    """The vectors of TEXTS, and the texts that were embedded for them."""
    embedder = HashedWords()
    vectors = PassedVectors(embedder, path, ["root"])
    for number, text in enumerate(TEXTS):
        vectors.ensure(number, text)
    return vectors, [text for call in embedder.calls for text in call]


@pytest.mark.parametrize("name", [None, "vectors.f16"])
def test_rows_are_read_back_rounded(tmp_path: Path, name: str | None) -> None:
    vectors, embedded = filled(tmp_path / name if name else None)
    assert embedded == ["root", *TEXTS]
    expected = to_float16(HashedWords().encode(TEXTS))
    assert (vectors.between(0, len(TEXTS)) == expected).all()
    assert (vectors[3] == expected[3]).all()
    assert (vectors.of_parent(4) == expected[3]).all()
    assert (vectors.of_parent(0) == to_float16(HashedWords().encode(["root"])[0])).all()


DAMAGE: dict[str, tuple[Callable[[bytes, int], bytes], list[str]]] = {
    "nothing": (lambda content, size: content, []),
    "a bit": (lambda content, size: content[: 6 * size + 1] + b"~" + content[6 * size + 2 :], TEXTS[5:6]),
    "a torn row": (lambda content, size: content[: 19 * size + 5], TEXTS[18:]),
    "zeros at the end": (lambda content, size: content[: 20 * size] + bytes(3 * size), TEXTS[19:]),
    "a swap": (lambda content, size: content[: 19 * size] + content[20 * size :] + content[19 * size : 20 * size],
               TEXTS[18:]),
    "rows of lost commits": (lambda content, size: content + content[size:], []),
    "other bytes": (lambda content, size: bytes(range(256)) * 50, ["root", *TEXTS]),
    "no bytes": (lambda content, size: b"", ["root", *TEXTS]),
}  # fmt: skip
"""Change of the file, given the bytes of a row, and the texts that are then embedded again."""


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_rows_are_computed_again(tmp_path: Path, how: str) -> None:
    change, again = DAMAGE[how]
    path = tmp_path / "vectors.f16"
    filled(path)
    content = path.read_bytes()
    path.write_bytes(change(content, len(content) // 21))
    _, embedded = filled(path)
    assert embedded == again
    assert path.read_bytes().startswith(content)


def test_a_row_that_a_full_disk_cut_off_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "vectors.f16"
    vectors, _ = filled(path)
    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"vectors\.f16: the disk is full"):
            vectors.ensure(20, "one more")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    vectors.ensure(20, "one more")
    assert (vectors[20] == to_float16(HashedWords().encode(["one more"])[0])).all()


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"vectors\.f16"):
        PassedVectors(HashedWords(), tmp_path / "absent" / "vectors.f16").ensure(0, "text")


@given(st.integers(0, 2**32 - 1))
def test_dot_products_do_not_depend_on_the_order_of_summation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2, 384))
    one, other = rounded_to_float16(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    shuffled = rng.permutation(384)
    assert float(one @ other) == float(one[shuffled] @ other[shuffled]) == sum((one * other).tolist())
