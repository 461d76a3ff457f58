"""A run's examples in the layouts that other programs read."""

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
from datacreate.formats.task_format import Roles, TaskFormat, answer_text
from datacreate.runs.directory import RunDirectory

_KEYS = ("question", "context", "options", "label")


def reference(run: RunDirectory, target: Path) -> Path:
    """`train_<strategy>.jsonl` in the folder `target`, a line each of question, context, options, label.

    That is the layout of the reference implementation. RunError if the format has no question and answer.
    """
    config = run.read_config()
    format = config.format
    roles = format.roles
    if roles.question is None or roles.answer is None:
        raise RunError(
            f"{run.path}: the reference layout needs a question and an answer field; export hf or chat"
        )

    def lines() -> Iterator[str]:
        for values in run.examples():
            yield json.dumps(
                dict(zip(_KEYS, _reference_row(values, format), strict=True)), ensure_ascii=False
            )

    return _write_lines(target / f"train_{config.spec.strategy}.jsonl", lines())


def _reference_row(values: dict[str, Json], format: TaskFormat) -> tuple[Json, ...]:
    roles = format.roles
    if roles.question is None or roles.answer is None:
        raise AssertionError("the caller asks for both")
    options = (
        field_at(values, roles.options) if roles.options else [answer_text(x) for x in format.labels or ()]
    )
    context = field_at(values, roles.context) if roles.context else None
    return field_at(values, roles.question), context, options, field_at(values, roles.answer)


def chat(run: RunDirectory, target: Path) -> Path:
    """`train_chat.jsonl`: one conversation a line, for fine-tuning a language model.

    The user's turn holds the question, the context and the options; the assistant's the answer.
    Without roles the assistant's turn is the whole example as JSON.
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
    """A directory that `datasets.load_from_disk` opens, as a DatasetDict with one split, train.

    It replaces one that was there; RunError if something else is.
    """
    part = target.with_name(target.name + ".part")
    with _columns(run, target) as dataset:
        if target.exists() and any(target.iterdir()) and not (target / "dataset_dict.json").is_file():
            raise RunError(f"{target} holds something else than a data set; choose another --out")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        dataset.save_to_disk(str(part))
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    return target


def parquet(run: RunDirectory, target: Path) -> Path:
    """`train.parquet` in the folder `target`."""
    path = target / "train.parquet"
    part = path.with_name(path.name + ".part")
    with _columns(run, path) as dataset:
        target.mkdir(parents=True, exist_ok=True)
        dataset["train"].to_parquet(part)
        part.replace(path)
    return path


@contextmanager
def _columns(run: RunDirectory, path: Path) -> Iterator[Any]:
    """The examples as a DatasetDict; what goes wrong with it in the block becomes one line."""
    examples = list(run.examples())
    import datasets

    datasets.disable_progress_bars()
    try:
        yield datasets.DatasetDict({"train": datasets.Dataset.from_list(examples)})
    except OSError as error:
        raise storage_error(path, error) from None
    except (ValueError, TypeError, OverflowError) as error:  # pyarrow's errors are of these
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
