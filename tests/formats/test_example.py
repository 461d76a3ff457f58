"""The formatting example as a file, and the id of an example."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from datacreate.errors import ExampleError
from datacreate.formats.example import Example
from datacreate.formats.reader import load_examples
from tests.formats.examples import json_objects


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "example.json"
    path.write_bytes(b'\xef\xbb\xbf{"text": "\xc3\xa9"}')
    assert load_examples(path)[0].values == {"text": "é"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n\t", "example.json: no rows; give JSONL, JSON, CSV"),
        (b'{"text": "a",\n  "label" 1}', "line 2: not JSON at '1}'"),
        (b"null", "not a JSON object: null"),
        (b"{}", "has no fields"),
        (b'{"text": "caf\xe9"}', "line 1: not UTF-8, probably Latin-1"),
        (b'{"score": NaN}', "score: JSON has no nan"),
        (b'{"score": 1e999}', "score: JSON has no inf"),
        (b'{"number": ' + b"9" * 5000 + b"}", "a number with too many digits"),
        (b'{"number": 99999999999999999999}', "number: an integer of more than 64 bits"),
        (b'{"text": "\\ud800"}', "lone surrogate"),
        (b'{"text": "a", "text": "b"}', "the key 'text' appears twice"),
        (b'{"a": ' + b"[" * 100_000, "nested deeper"),
        (b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", "nested deeper than 20 levels"),
    ],
)
def test_an_invalid_file_is_an_error_of_one_line_with_the_path(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "example.json"
    path.write_bytes(content)
    with pytest.raises(ExampleError) as raised:
        load_examples(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ExampleError, match="no such file"):
        load_examples(tmp_path / "mine.json")
    with pytest.raises(ExampleError, match="a folder without a data set"):
        load_examples(tmp_path)


@given(values=json_objects)
def test_equal_values_have_equal_ids(values: dict[str, object]) -> None:
    assert Example(values).id == Example(dict(reversed(values.items()))).id
    assert Example({"label": True}).id != Example({"label": 1}).id
