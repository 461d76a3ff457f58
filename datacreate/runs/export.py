"""Writes a run's examples in the layouts that other programs read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datacreate.errors import RunError
from datacreate.files import refuse_links
from datacreate.formats.example import Json, field_at
from datacreate.formats.task_format import TaskFormat
from datacreate.locking import replaced_by_one
from datacreate.runs.directory import RunDirectory


def export(run: RunDirectory, layout: str, target: Path | None = None, *, partial: bool = False) -> Path:
    """Write the examples in a layout of `LAYOUTS` into the folder `target` (default: in the run); returns the path.

    Raises RunError if the run is not finished (unless `partial`) or does not fit the layout, RunLocked if another
    process writes there, StorageError if the target cannot be written. An older export is replaced; after an error
    nothing is left behind.
    """
    config, accepted = run.read_config(), run.accepted()
    if accepted < config.count and not partial:
        raise RunError(
            f"{run.path}: not finished, {accepted} of {config.count} examples; finish it with the same `create` "
            "command, or export what there is with --partial"
        )
    file_name, write = LAYOUTS[layout]
    if target:
        target = target.resolve()
    else:
        target = run.path / "export" / layout
        refuse_links(target.parent, target)
    path = target / file_name.format(strategy=config.spec.strategy)  # hf: the folder itself
    if not file_name and path.is_dir() and any(path.iterdir()) and not (path / "dataset_dict.json").is_file():
        raise RunError(f"{path} has other files and no data set; choose another --out")
    with replaced_by_one(path) as part:
        write(run, part)
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


def _hf(run: RunDirectory, path: Path) -> None:
    """A folder for `datasets.load_from_disk`: a DatasetDict with the split `train`."""
    with _columns(run) as dataset:
        dataset.save_to_disk(str(path))


def _parquet(run: RunDirectory, path: Path) -> None:
    with _columns(run) as dataset:
        dataset["train"].to_parquet(path)


@contextmanager
def _columns(run: RunDirectory) -> Iterator[Any]:
    """The examples as a DatasetDict. Raises RunError where a field has values of several types."""
    import datasets

    datasets.disable_progress_bars()
    try:
        yield datasets.DatasetDict({"train": datasets.Dataset.from_list(list(run.examples()))})
    except (ValueError, TypeError, OverflowError) as error:  # base classes of pyarrow's errors
        raise RunError(
            f"{run.path}: the examples do not fit into columns of one type each ({error}); "
            "export reference or chat"
        ) from None


def _write_lines(path: Path, rows: Iterable[Json]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


LAYOUTS: dict[str, tuple[str, Callable[[RunDirectory, Path], None]]] = {
    "reference": ("train_{strategy}.jsonl", _reference),
    "hf": ("", _hf),
    "parquet": ("train.parquet", _parquet),
    "chat": ("train_chat.jsonl", _chat),
}
"""Layout -> name of its file, "" for a folder, and the function that writes it."""
