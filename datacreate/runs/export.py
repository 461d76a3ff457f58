"""Writes a run's examples in the layouts that other programs read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datacreate.errors import RunError
from datacreate.files import replaced, storage_error
from datacreate.formats.example import Json, field_at, one_line
from datacreate.formats.task_format import TaskFormat
from datacreate.messages import Notify, no_notify
from datacreate.runs.directory import RunDirectory


def export(
    run: RunDirectory,
    layout: str,
    target: Path | None = None,
    *,
    partial: bool = False,
    notify: Notify = no_notify,
) -> Path:
    """Write the examples in a layout of `LAYOUTS` into the folder `target` (default: in the run); returns the path.

    `notify` gets a line about what the layout holds in another form, or not at all. Raises RunError if the run is not
    finished (unless `partial`) or does not fit the layout, StorageError if the target cannot be written. An older
    export is replaced; after an error it stays, and no file is left behind.
    """
    config, accepted = run.read_config(), run.accepted()
    if accepted < config.count and not partial:
        raise RunError(
            f"{run.path}: not finished, {accepted} of {config.count} examples; finish it with the same `create` "
            "command, or export what there is with --partial"
        )
    file_name, write = LAYOUTS[layout]
    target = target.resolve() if target else run.path / "export" / layout
    path = target / file_name.format(strategy=config.spec.strategy)  # hf: the folder itself
    if not file_name and path.is_dir() and any(path.iterdir()) and not (path / "dataset_dict.json").is_file():
        raise RunError(f"{path} has other files and no data set; choose another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from None
    with replaced(path) as part:
        note = write(run, part)
    if note:
        notify(note)
    return path


def _reference(run: RunDirectory, path: Path) -> None:
    """Question, context, options and label, as the reference implementation writes them."""
    format = run.read_config().format
    question, answer, roles = format.roles.question, format.roles.answer, format.roles
    if question is None or answer is None:
        raise RunError(
            f"{run.path}: the reference layout needs a question and an answer field; export hf or chat"
        )
    labels = [str(label) for label in format.labels or ()]
    rows = (
        {
            "question": format.question_text(values),
            "context": field_at(values, roles.context) if roles.context else None,
            "options": field_at(values, roles.options) if roles.options else labels,
            "label": field_at(values, answer),
        }
        for values in run.examples()
    )
    _write_lines(path, rows)


def _chat(run: RunDirectory, path: Path) -> None:
    """One conversation per line, for fine-tuning a language model.

    The user's turn holds context, question, other inputs and options, the assistant's turn the answer. Without a
    question or an answer the assistant's turn is the whole example as JSON.
    """
    format = run.read_config().format
    turns = (_turns(values, format) for values in run.examples())
    rows = (
        [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        for user, assistant in turns
    )
    _write_lines(path, ({"messages": messages} for messages in rows))


def _turns(values: dict[str, Json], format: TaskFormat) -> tuple[str, str]:
    roles = format.roles
    if roles.question is None or roles.answer is None:
        return "Write one example.", json.dumps(values, ensure_ascii=False)
    parts = (
        [str(field_at(values, roles.context))] if roles.context and field_at(values, roles.context) else []
    )
    parts.append(format.question_text(values))
    if roles.options:
        parts.append("\n".join(f"- {option!s}" for option in field_at(values, roles.options)))
    return "\n\n".join(parts), str(field_at(values, roles.answer))


def _hf(run: RunDirectory, path: Path) -> str:
    """A folder for `datasets.load_from_disk`: a DatasetDict with the split `train`."""
    import datasets

    dataset, note = _columns(run)
    datasets.DatasetDict({"train": dataset}).save_to_disk(str(path))
    return note


def _parquet(run: RunDirectory, path: Path) -> str:
    dataset, note = _columns(run)
    dataset.to_parquet(path)
    return note


def _columns(run: RunDirectory) -> tuple[Any, str]:
    """The examples as a `datasets.Dataset` that returns them unchanged; a line about fields that it holds as JSON text.

    These are fields whose values have no common type, or would come back with other keys.
    """
    import datasets

    datasets.disable_progress_bars()
    rows = list(run.examples())
    columns = {
        name: [row.get(name) for row in rows] for name in run.read_config().format.schema["properties"]
    }
    as_text = [name for name, values in columns.items() if not _is_column(values)]
    columns |= {name: [json.dumps(value, ensure_ascii=False) for value in columns[name]] for name in as_text}
    note = f"as JSON text, since a column cannot hold their values: {', '.join(map(one_line, as_text))}"
    return datasets.Dataset.from_dict(columns), note if as_text else ""


def _is_column(values: list[Json]) -> bool:
    """Whether an Arrow column holds these values unchanged, and a Parquet file, too."""
    import datasets

    try:
        column = datasets.Dataset.from_dict({"column": values}).data.column(0)
    except (ValueError, TypeError, OverflowError):  # base classes of pyarrow's errors
        return False
    return "struct<>" not in str(column.type) and bool(column.to_pylist() == values)


def _csv(run: RunDirectory, path: Path) -> None:
    """A header and a line per example. Texts as they are; null as an empty cell; other values as JSON text."""
    names = list(run.read_config().format.schema["properties"])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_cell(values.get(name)) for name in names] for values in run.examples())


def _cell(value: Json) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _write_lines(path: Path, rows: Iterable[Json]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


LAYOUTS: dict[str, tuple[str, Callable[[RunDirectory, Path], str | None]]] = {
    "reference": ("train_{strategy}.jsonl", _reference),
    "hf": ("", _hf),
    "parquet": ("train.parquet", _parquet),
    "csv": ("train.csv", _csv),
    "chat": ("train_chat.jsonl", _chat),
}
"""Layout -> name of its file, "" for a folder, and the function that writes it. It may return a line for the user."""
