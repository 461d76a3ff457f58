"""Writes a run's examples in the layouts that other programs read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datacreate.errors import RunError
from datacreate.files import storage_error
from datacreate.formats.example import Json, field_at
from datacreate.formats.task_format import Roles, answer_text
from datacreate.runs.directory import RunDirectory


def reference(run: RunDirectory, target: Path) -> Path:
    """Write `train_<strategy>.jsonl` into the folder `target`, with question, context, options and label.

    This is the layout of the reference implementation. Raises RunError if the format lacks a question or answer.
    """
    config = run.read_config()
    format = config.format
    question, answer, roles = format.roles.question, format.roles.answer, format.roles
    if question is None or answer is None:
        raise RunError(
            f"{run.path}: the reference layout needs a question and an answer field; export hf or chat"
        )

    def lines() -> Iterator[str]:
        labels = [answer_text(label) for label in format.labels or ()]
        for values in run.examples():
            row = {
                "question": field_at(values, question),
                "context": field_at(values, roles.context) if roles.context else None,
                "options": field_at(values, roles.options) if roles.options else labels,
                "label": field_at(values, answer),
            }
            yield json.dumps(row, ensure_ascii=False)

    return _write_lines(target / f"train_{config.spec.strategy}.jsonl", lines())


def chat(run: RunDirectory, target: Path) -> Path:
    """Write `train_chat.jsonl`, one conversation per line, for fine-tuning a language model.

    The user's turn holds context, question and options, the assistant's turn the answer. Without these roles the
    assistant's turn is the whole example as JSON.
    """
    roles = run.read_config().format.roles

    def lines() -> Iterator[str]:
        for values in run.examples():
            user, assistant = _turns(values, roles)
            messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
            yield json.dumps({"messages": messages}, ensure_ascii=False)

    return _write_lines(target / "train_chat.jsonl", lines())


def _turns(values: dict[str, Json], roles: Roles) -> tuple[str, str]:
    if roles.question is None or roles.answer is None:
        return "Write one example.", json.dumps(values, ensure_ascii=False)
    parts = (
        [str(field_at(values, roles.context))] if roles.context and field_at(values, roles.context) else []
    )
    parts.append(str(field_at(values, roles.question)))
    if roles.options:
        parts.append("\n".join(f"- {answer_text(option)}" for option in field_at(values, roles.options)))
    return "\n\n".join(parts), answer_text(field_at(values, roles.answer))


def hf(run: RunDirectory, target: Path) -> Path:
    """Write a folder for `datasets.load_from_disk`: a DatasetDict with the split `train`.

    Replaces an older data set. Raises RunError if the folder holds anything else.
    """
    part = target.with_name(target.name + ".part")
    with _columns(run, target) as dataset:
        if target.exists() and any(target.iterdir()) and not (target / "dataset_dict.json").is_file():
            raise RunError(f"{target} has other files and no data set; choose another --out")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        dataset.save_to_disk(str(part))
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    return target


def parquet(run: RunDirectory, target: Path) -> Path:
    """Write `train.parquet` into the folder `target`."""
    path = target / "train.parquet"
    part = path.with_name(path.name + ".part")
    with _columns(run, path) as dataset:
        target.mkdir(parents=True, exist_ok=True)
        dataset["train"].to_parquet(part)
        part.replace(path)
    return path


@contextmanager
def _columns(run: RunDirectory, path: Path) -> Iterator[Any]:
    """The examples as a DatasetDict; errors in the block become RunError or StorageError."""
    examples = list(run.examples())
    import datasets

    datasets.disable_progress_bars()
    try:
        yield datasets.DatasetDict({"train": datasets.Dataset.from_list(examples)})
    except OSError as error:
        raise storage_error(path, error) from None
    except (ValueError, TypeError, OverflowError) as error:  # base classes of pyarrow's errors
        raise RunError(
            f"{run.path}: the examples do not fit into columns of one type each ({error}); "
            "export reference or chat"
        ) from None


LAYOUTS: dict[str, Callable[[RunDirectory, Path], Path]] = {
    "reference": reference,
    "hf": hf,
    "parquet": parquet,
    "chat": chat,
}


def _write_lines(path: Path, lines: Iterator[str]) -> Path:
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(line + "\n" for line in lines)
        part.replace(path)
    except OSError as error:
        raise storage_error(path, error) from None
    return path
