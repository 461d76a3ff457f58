"""Reads files with rows: JSONL, JSON, CSV, TSV, Parquet, each also with gzip, and folders of Hugging Face `datasets`.

The content decides how a file is read, unless its name ends in .csv, .tsv, .json, .jsonl or .ndjson.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from datacreate.errors import UsageError
from datacreate.formats.example import JSON_TYPES, MAX_NESTING, Json, find_unsupported_value, one_line, parse_object
from datacreate.formats.schema_utils import Schema

READABLE = "give JSONL, JSON, CSV, TSV or Parquet"

_HEAD_BYTES = 1 << 16  # the start of a file, from which its kind is recognized

_MAX_DOCUMENT_BYTES = 100 << 20
"""The maximum size of a CSV cell, and of a JSON file that is not JSONL, which takes up to 500 MB of memory."""

MAX_EXAMPLES = 1000  # the most formatting examples of a run
_BATCH_ROWS = 1000  # rows of a Parquet file in memory
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_DECODER = json.JSONDecoder()

_WRAPPERS = ("data", "rows", "records", "examples", "samples", "instances", "train", "validation", "test")
"""Keys of a list of rows, in a file that holds one object."""


@dataclass(frozen=True)
class RawRow:
    """One row. `error` says why it is not a JSON object that train.jsonl can hold; `values` is empty then."""

    number: int  # the line where it starts; in Parquet files and folders its position; from 1
    line: str  # its JSON in one line, unchanged if the file has it so; of an invalid row the text in the file
    values: dict[str, Json] = field(default_factory=dict)
    error: str | None = None


class RowFile:
    """A file with rows. A pipe is read once, into a temporary copy.

    Raises UsageError if there is no such file, or none that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values_are_text = False  # CSV: all values are texts
        self._data, self._is_compressed = path, False
        with self._one_line_errors():
            self._rows = self._rows_of_folder() if path.is_dir() else self._rows_of_file()

    def read(self, schema: Schema | None = None) -> Iterator[RawRow]:
        """The rows, from the first. In a CSV file, texts become the types that `schema` says, such as 4 or true.

        Raises UsageError if the file has no rows, or, with the line, if it cannot be read further.
        """
        with self._one_line_errors():
            rows = self._rows()
            first_rows = list(islice(rows, 2))
            if not first_rows:
                raise UsageError(f"{self.path}: no rows; {READABLE}")
            if len(first_rows) == 1 and (name := _wrapper(first_rows[0].values)):
                raise ValueError(f"one object that holds rows; unwrap them with `jq -c '.{name}[]'`")
            for row in chain(first_rows, rows):
                yield _typed(row, schema) if schema and self.values_are_text else row

    def read_objects(self) -> Iterator[dict[str, Json]]:
        """The values of all rows. Raises UsageError, with the line, for a row that is not a JSON object."""
        for row in self.read():
            if row.error:
                raise UsageError(f"{self.path}: line {row.number}: {row.error}; repair or remove the row")
            yield row.values

    def sha256(self) -> str:
        """The SHA-256 of the content in hex digits; for a folder, of its Arrow files."""
        digest = hashlib.sha256()
        with self._one_line_errors():
            for path in sorted(self.path.glob("*.arrow")) if self.path.is_dir() else [self._data]:
                with path.open("rb") as file:
                    hashlib.file_digest(file, lambda: digest)
        return digest.hexdigest()

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Raise UsageError, with the path, for each error of the operating system, a decoder or this module."""
        try:
            yield
        except FileNotFoundError:
            if str(self.path) == "-":
                raise UsageError("-: no such file; standard input is /dev/stdin") from None
            raise UsageError(f"{self.path}: no such file; {READABLE}") from None
        except (OSError, EOFError, zlib.error) as error:
            why = getattr(error, "strerror", None) or f"damaged: {error}"
            raise UsageError(f"{self.path}: cannot be read ({one_line(why)}); give another file") from None
        except ValueError as error:
            raise UsageError(f"{self.path}: {one_line(str(error))}") from None

    def _rows_of_file(self) -> Callable[[], Iterator[RawRow]]:
        """Recognize the kind of the file by its name and its start; returns the function that reads such rows.

        Raises ValueError for a file that cannot be read.
        """
        if not self.path.is_file():
            self._copy(self.path.open("rb"))
        with self._data.open("rb") as file:
            self._is_compressed = file.read(2) == b"\x1f\x8b"
        with self._open() as file:
            head = file.read(_HEAD_BYTES)
        if head.startswith(b"PAR1"):
            if self._is_compressed:  # Parquet needs a file with random access
                self._copy(self._open())
            return self._parquet
        if head.startswith(_UTF16) or max(head[::2].count(0), head[1::2].count(0)) > len(head) / 4:
            raise ValueError("UTF-16, not UTF-8; convert it with `iconv -f UTF-16 -t UTF-8`")
        if b"\0" in head:
            raise ValueError(f"a binary file of an unknown kind; {READABLE}")
        start = head.removeprefix(codecs.BOM_UTF8).lstrip()
        first_line = start.partition(b"\n")[0]
        endings = [ending for ending in self.path.suffixes if ending != ".gz"]
        ending = endings[-1].lower() if endings else ""
        is_json = ending in (".json", ".jsonl", ".ndjson") or start.startswith((b"{", b"["))
        if ending in (".csv", ".tsv") or (not is_json and re.search(rb"[,;\t]", first_line)):
            self.values_are_text = True
            delimiter = "\t" if ending == ".tsv" else max(",;\t", key=first_line.decode("latin-1").count)
            return lambda: _table(self._lines(), delimiter)
        return self._documents if start.startswith(b"[") or self._spans_lines() else self._json_lines

    def _open(self) -> BinaryIO:
        return cast(BinaryIO, gzip.open(self._data)) if self._is_compressed else self._data.open("rb")

    def _copy(self, source: BinaryIO) -> None:
        """Make a temporary copy, from which the rows are read; it is removed with this object."""
        self._temporary = tempfile.NamedTemporaryFile(prefix="datacreate-")  # noqa: SIM115
        with source:
            shutil.copyfileobj(source, self._temporary)
        self._temporary.flush()
        self._data, self._is_compressed = Path(self._temporary.name), False

    def _lines(self) -> Iterator[str]:
        """The lines. Only "\\n" ends a line: JSON strings may hold U+2028 and similar."""
        with self._open() as file:
            for number, line in enumerate(file, 1):
                yield decoded(line, number)

    def _spans_lines(self) -> bool:
        """Whether the first object continues after its first line."""
        first = next((line for line in self._lines() if line.strip()), "")
        try:
            json.loads(first)
        except json.JSONDecodeError as error:
            return error.pos >= len(first.rstrip()) > 0
        except (ValueError, RecursionError):
            pass
        return False

    def _json_lines(self) -> Iterator[RawRow]:
        for number, line in enumerate(self._lines(), 1):
            if content := line.strip(" \t\r\n"):
                yield _row(number, content)

    def _documents(self) -> Iterator[RawRow]:
        """The objects of an array, or objects one after another."""
        with self._open() as file:
            content = file.read(_MAX_DOCUMENT_BYTES + 1)
        if len(content) > _MAX_DOCUMENT_BYTES:
            limit = f"{_MAX_DOCUMENT_BYTES >> 20} MiB"
            raise ValueError(f"larger than {limit} and not JSONL; convert it with `jq -c '.[]'`")
        return _objects_in(decoded(content))

    def _parquet(self) -> Iterator[RawRow]:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self._data) as file:
                yield from _arrow_rows(file.iter_batches(batch_size=_BATCH_ROWS))
        except pa.ArrowException as error:
            raise ValueError(f"damaged Parquet ({str(error)[:100]}); give another file") from None

    def _rows_of_folder(self) -> Callable[[], Iterator[RawRow]]:
        if (self.path / "dataset_dict.json").is_file():
            splits = ", ".join(sorted(part.parent.name for part in self.path.glob("*/state.json")))
            raise ValueError(f"a data set with several splits; give the folder of one ({splits})")
        if not is_row_file(self.path):
            raise ValueError(f"a folder without a data set; {READABLE}, or a folder of `save_to_disk`")
        return self._data_set

    def _data_set(self) -> Iterator[RawRow]:
        import datasets

        try:
            data_set = datasets.load_from_disk(str(self.path)).with_format("arrow")
        except Exception as error:  # noqa: BLE001 (the library has no common error for damaged files)
            raise ValueError(f"damaged data set ({str(error)[:100]}); save it again") from None
        yield from _arrow_rows(data_set.iter(_BATCH_ROWS))


def decoded(content: bytes, line: int = 1) -> str:
    """The text of a part of a UTF-8 file, which starts in this line.

    Raises ValueError, with the line and the probable encoding, for bytes that are not UTF-8.
    """
    try:
        return content.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        wrong_line = content[content.rfind(b"\n", 0, error.start) + 1 :].partition(b"\n")[0]
    is_latin = 3 * sum(byte > 127 for byte in wrong_line) <= len(wrong_line)
    why = ", probably Latin-1 (Windows-1252)" if is_latin else " (`file -i` guesses the encoding)"
    encoding = "WINDOWS-1252" if is_latin else "ENCODING"
    raise ValueError(f"line {line}: not UTF-8{why}; convert it with `iconv -f {encoding} -t UTF-8`")


def is_row_file(path: Path) -> bool:
    """Whether the path is one to read rows from: a file, or a folder in which `datasets` saved one or more splits."""
    if not path.is_dir():
        return path.exists()
    return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _wrapper(values: dict[str, Json]) -> str | None:
    """The key of the rows in an object like `{"data": [{...}, ...]}`; None for an object that is a row itself."""
    names = [name for name, value in values.items() if isinstance(value, list) and value]
    if len(names) != 1 or names[0] not in _WRAPPERS or values.keys() - {names[0], "version"}:
        return None
    return names[0] if all(isinstance(row, dict) for row in values[names[0]]) else None


def _row(number: int, text: str) -> RawRow:
    """Parse a row from its JSON; invalid JSON makes a row with an error."""
    try:
        values = parse_object(text)
    except ValueError as error:
        return RawRow(number, text, error=str(error))
    return RawRow(number, json.dumps(values, ensure_ascii=False) if "\n" in text else text, values)


def _objects_in(text: str) -> Iterator[RawRow]:
    """The rows of an array, or of objects one after another; the commas between them are optional."""
    line, counted, end = 1, 0, 0  # `counted`: the line breaks before this index are in `line`
    in_array = text.lstrip().startswith("[")
    if in_array:
        end = text.index("[") + 1
    while (start := cast(re.Match[str], _BETWEEN.match(text, end)).end()) < len(text):
        line, counted = line + text.count("\n", counted, start), start
        if in_array and text[start] == "]":
            break
        try:
            end = _DECODER.raw_decode(text, start)[1]
        except json.JSONDecodeError as error:
            near = text[error.pos : error.pos + 20].strip()
            where = f"at {near!r}" if near else "at the end of the file"
            line += text.count("\n", start, error.pos)
            raise ValueError(f"line {line}: not JSON {where} ({error.msg}); repair the file") from None
        except (ValueError, RecursionError) as error:
            why = f"nested deeper than {MAX_NESTING} levels" if isinstance(error, RecursionError) else error
            raise ValueError(f"line {line}: {why}") from None
        yield _row(line, text[start:end])
    if in_array and text[start:].rstrip() != "]":
        raise ValueError("not JSON: the array does not end, or is not all of the file; repair the file")


def _table(lines: Iterable[str], delimiter: str) -> Iterator[RawRow]:
    """The rows of a CSV file: values are texts, an empty cell is null.

    A row with another number of cells is one with an error. Wrong quotes end the reading: the next row could start
    anywhere.
    """
    csv.field_size_limit(_MAX_DOCUMENT_BYTES)
    number, row_lines = 1, list[str]()  # the line where the row starts, and the lines that are read of it

    def recorded() -> Iterator[str]:
        for line in lines:
            row_lines.append(line)
            yield line

    reader = csv.reader(recorded(), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(filter(None, reader), [])]
        if header == ["sep=", ""]:  # Excel's first line
            header = [name.strip() for name in next(filter(None, reader), [])]
        if "" in header or len(set(header)) < len(header):
            raise ValueError("line 1: a column has no name, or the name of another; name each there")
        number = reader.line_num + 1
        row_lines.clear()
        for cells in reader:
            if cells and len(cells) != len(header):
                counts = f"{len(cells)} cells, but {len(header)} columns in the first line"
                error = f"{counts} (quote cells that contain {delimiter!r})"
                yield RawRow(number, "".join(row_lines).rstrip("\r\n"), error=error)
            elif cells:
                values = {name: cell or None for name, cell in zip(header, cells, strict=True)}
                yield _row(number, json.dumps(values, ensure_ascii=False))
            number = reader.line_num + 1
            row_lines.clear()
    except csv.Error as csv_error:
        problem = f"{csv_error}; repair the line"
        if "new-line character" in str(csv_error):  # the csv module's advice is for its callers
            problem = "its line ends are carriage returns; convert them with `tr '\\r' '\\n'`"
        raise ValueError(f"line {number}: {problem}") from None


def _arrow_rows(batches: Iterable[Any]) -> Iterator[RawRow]:
    """The rows of Arrow batches; dates and times become ISO 8601 texts."""
    rows = (values for batch in batches for values in batch.to_pylist(maps_as_pydicts="lossy"))
    for number, values in enumerate(rows, 1):
        try:
            yield _row(number, json.dumps(values, ensure_ascii=False, default=_iso_time))
        except TypeError as error:
            column = next(name for name, value in values.items() if not _is_json(value))
            raise ValueError(f"row {number}: the column {column!r}: {error}; remove the column") from None


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, default=_iso_time)
    except TypeError:
        return False
    return True


def _iso_time(value: Any) -> str:
    if not hasattr(value, "isoformat"):
        raise TypeError(f"{type(value).__name__} is not a JSON type")
    return str(value.isoformat())


def _typed(row: RawRow, schema: Schema) -> RawRow:
    """The row with JSON values instead of texts in the fields that cannot be texts in `schema`: 4, true, ["a", "b"].

    Also `True` and `False`, as Python writes them, become booleans. Other texts stay, to be found invalid later.
    """
    if row.error:
        return row
    values = dict(row.values)
    for name, part in schema["properties"].items():
        text = values.get(name)
        types = part.get("type") or [JSON_TYPES[type(value)] for value in part.get("enum", ())]
        if isinstance(text, str) and types and "string" not in types:
            with suppress(ValueError, RecursionError):
                value = json.loads({"True": "true", "False": "false"}.get(text, text))
                values[name] = text if find_unsupported_value(value) else value
    return replace(row, values=values, line=json.dumps(values, ensure_ascii=False))
