"""What wheels say of themselves, and files in pieces read as one."""

from __future__ import annotations

import io
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.bundle.closure import Spliced, read_wheels
from datacreate.bundle.contents import Entry, Piece, pour
from tests.checkpoints.conftest import zipped


def carried(folder: Path, content: bytes, piece_bytes: int, path: str = "file") -> Entry:
    """An entry in pieces, as `make` writes them."""
    blocks = [content[at : at + piece_bytes] for at in range(0, len(content), piece_bytes)] or [b""]
    pieces = []
    for number, block in enumerate(blocks, 1):
        name = f"{path}.{number:03d}"
        (folder / name).write_bytes(block)
        pieces.append(Piece(name, len(block), sha256(block).hexdigest()))
    return Entry(path, len(content), sha256(content).hexdigest(), "wheel", tuple(pieces))


@given(st.binary(max_size=60), st.integers(1, 70), st.integers(0, 70), st.integers(0, 70))
def test_pieces_read_as_the_file_that_was_split(content: bytes, piece_bytes: int, at: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        entry = carried(Path(folder), content, piece_bytes)
        spliced = Spliced(Path(folder), entry)
        spliced.seek(at)
        assert spliced.read(size) == content[at : at + size]
        out = io.BytesIO()
        pour(Path(folder), entry, out)
        assert out.getvalue() == content


@pytest.mark.parametrize(
    ("tags", "glibc"),
    [
        ("any", ""),
        ("manylinux1_x86_64", "2.5"),
        ("manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64", "2.17"),
        ("manylinux_2_28_x86_64", "2.28"),
        ("linux_x86_64", ""),
    ],
)
def test_the_oldest_glibc_that_a_wheel_runs_on_counts(tmp_path: Path, tags: str, glibc: str) -> None:
    wheel = zipped(
        {"a-1.dist-info/METADATA": b"Name: a\nRequires-Dist: b; extra == 'more'\n", "a.py": b"12345"}
    )
    told = read_wheels(
        tmp_path, [carried(tmp_path, wheel, 50, f"a-1-py3-none-{tags}.whl")], {"extra": ""}, set()
    )
    assert (told.glibc, told.unmet) == (glibc, ())
    assert told.installed_bytes > 5
