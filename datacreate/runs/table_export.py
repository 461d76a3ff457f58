"""Writes examples as tables: CSV, Parquet, a `datasets` folder.

The columns and their types follow from the JSON Schema of the format, never from the rows. So all sets of one format
have the same columns.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from datacreate.formats.example import Json
from datacreate.formats.schema_utils import Schema

_BATCH_ROWS = 1000

Columns = Mapping[str, Schema]
"""The JSON Schema of each column."""

RowIterator = Iterator[Mapping[str, Json]]


def write_parquet(columns: Columns, rows: RowIterator, path: Path) -> None:
    import pyarrow.parquet

    schema = _arrow_schema(columns)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for batch in _batches(columns, rows, schema):
            writer.write_batch(batch)


def write_datasets(columns: Columns, splits: Mapping[str, RowIterator], path: Path) -> None:
    """Write a folder for `datasets.load_from_disk` with these splits."""
    import datasets

    datasets.disable_progress_bars()
    schema = _arrow_schema(columns)
    datasets_of_splits = {
        name: datasets.Dataset(pa.Table.from_batches(_batches(columns, rows, schema), schema))
        for name, rows in splits.items()
    }
    datasets.DatasetDict(datasets_of_splits).save_to_disk(str(path))


def write_csv(columns: Columns, rows: RowIterator, path: Path) -> None:
    """Write a header and a line per row: texts as they are, null as an empty cell, other values as JSON text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)  # ends lines with "\r\n": with another line end it would not quote a "\r" in a text
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row.get(name)) for name in columns])


def text_columns(columns: Columns) -> list[str]:
    """The columns of Parquet and `datasets` that hold JSON text, because no type holds all their values."""
    return [name for name, schema in columns.items() if arrow_type(schema) is None]


def _cell(value: Json) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _arrow_schema(columns: Columns) -> Any:
    return pa.schema([(name, arrow_type(schema) or pa.string()) for name, schema in columns.items()])


def _batches(columns: Columns, rows: RowIterator, schema: Any) -> Iterator[Any]:
    as_text = text_columns(columns)
    while batch := list(islice(rows, _BATCH_ROWS)):
        arrays = []
        for field in schema:
            values = [row.get(field.name) for row in batch]
            if field.name in as_text:
                values = [json.dumps(value, ensure_ascii=False) for value in values]
            elif "double" in str(field.type):
                values = [_with_floats(value, field.type) for value in values]
            arrays.append(pa.array(values, field.type))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _with_floats(value: Json, data_type: Any) -> Json:
    """The value with floats where the type has them: Arrow refuses a whole number that it would have to round."""
    if isinstance(value, dict):
        return {field.name: _with_floats(value[field.name], field.type) for field in data_type}
    if isinstance(value, list):
        return [_with_floats(part, data_type.value_type) for part in value]
    return float(value) if pa.types.is_floating(data_type) and value is not None else value


def arrow_type(schema: Json) -> Any:
    """The Arrow type that holds every valid value unchanged; None if there is none, and the column is JSON text.

    There is none for values of several types, for constant objects, and for objects that may have other keys or lack
    some.
    """
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema or "enum" in schema:
        try:
            arrow = pa.array([schema["const"]] if "const" in schema else schema["enum"]).type
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return None
        return None if "struct" in str(arrow) else arrow
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return _common(arrow_type(part) for part in schema[keyword])
    types = schema.get("type", ())
    return _common(_arrow_type_of(each, schema) for each in ([types] if isinstance(types, str) else types))


def _arrow_type_of(json_type: str, schema: Schema) -> Any:
    if json_type == "object":
        parts = schema.get("properties") or {}
        is_closed = not isinstance(schema.get("additionalProperties"), Mapping)
        types = {name: arrow_type(part) for name, part in parts.items()}
        is_struct = parts and is_closed and parts.keys() == set(schema.get("required", ()))
        return pa.struct(list(types.items())) if is_struct and None not in types.values() else None
    if json_type == "array":
        items = [*schema.get("prefixItems", ()), *([schema["items"]] if "items" in schema else [])]
        inner = _common(map(arrow_type, items)) if items else None
        return None if inner is None else pa.list_(inner)
    scalars = {"string": pa.string(), "boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64()}
    return scalars.get(json_type, pa.null())


def _common(types: Any) -> Any:
    """The type that holds the values of all these types; None if there is none. A whole number is a number."""
    different = list(dict.fromkeys(types))
    if None in different or not different:
        return None
    different = [each for each in different if each != pa.null()] or [pa.null()]
    if set(different) == {pa.int64(), pa.float64()}:
        return pa.float64()
    return different[0] if len(different) == 1 else None
