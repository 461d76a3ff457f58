"""The formatting example as a file, and the identity of an example."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from datacreate.errors import ExampleError
from datacreate.formats.example import Example, load_example
from tests.formats.kinds import UMBRELLA, json_objects


def written(folder: Path, content: bytes) -> Path:
    path = folder / "example.json"
    path.write_bytes(content)
    return path


def test_a_file_with_one_object_is_an_example(tmp_path: Path) -> None:
    assert load_example(written(tmp_path, json.dumps(UMBRELLA).encode())).values == UMBRELLA


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert load_example(written(tmp_path, b'\xef\xbb\xbf{"text": "\xc3\xa9"}')).values == {"text": "é"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b" \n\t", "the file is empty"),
        (b'{"text": "a",\n  "label" 1}', "not JSON at line 2, column 11"),
        (b"just words", "not JSON at line 1, column 1"),
        (b'[{"text": "a"}, {"text": "b"}]', "a list of 2; keep one of its objects"),
        (b"3", "3 is not a JSON object"),
        (b"null", "null is not a JSON object"),
        (b"{}", "has no fields"),
        (b'{"text": "caf\xe9"}', "not UTF-8 at byte 13"),
        ('{"text": "a"}'.encode("utf-16"), "not UTF-8"),
        (b'{"score": NaN}', "score: JSON has no nan"),
        (b'{"score": 1e999}', "score: JSON has no inf"),
        (b'{"number": ' + b"9" * 5000 + b"}", "integer"),
        (b'{"number": 99999999999999999999}', "more than 64 bits"),
        (b'{"text": "\\ud800"}', "lone surrogate"),
        (b'{"text": "a", "text": "b"}', "the key 'text' appears twice"),
        (b'{"a": ' + b"[" * 100_000, "nested deeper"),
        (b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", "nested deeper than 20 levels"),
    ],
)
def test_what_is_no_example_is_refused_in_one_line_that_names_the_file(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ExampleError) as raised:
        load_example(path)
    assert says in str(raised.value)
    assert str(path) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExampleError, match="no such file"):
        load_example(tmp_path / "mine.json")
    with pytest.raises(ExampleError, match="Is a directory"):
        load_example(tmp_path)


@given(values=json_objects)
def test_examples_with_the_same_values_are_the_same_example(values: dict[str, object]) -> None:
    assert Example(values).id == Example(dict(reversed(values.items()))).id


def test_other_values_are_another_example() -> None:
    assert Example({"label": True}).id != Example({"label": 1}).id
