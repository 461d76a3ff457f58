"""Writes a run's examples in the layouts that other programs read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datacreate.errors import RunError
from datacreate.files import refuse_links
from datacreate.formats.example import FieldPath, Json, dotted, field_at, one_line, value_at
from datacreate.formats.layouts import as_messages
from datacreate.formats.schema_utils import leaves
from datacreate.formats.task_format import TaskFormat
from datacreate.locking import replaced_by_one
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
    finished (unless `partial`) or does not fit the layout, RunLocked if another process writes there, StorageError if
    the target cannot be written. An older export is replaced; after an error it stays, and no file is left behind.
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
    with replaced_by_one(path, notify) as part:
        note = write(run, part)
    if note:
        notify(note)
    return path


def _reference(run: RunDirectory, path: Path) -> str:
    """Question, context, options and label, as the reference implementation writes them."""
    format = run.read_config().format
    answer, roles = format.roles.answer, format.roles
    if not roles.inputs or answer is None:
        raise RunError(
            f"{run.path}: the reference layout needs an input and an answer field; export hf or chat"
        )
    labels = [str(label) for label in format.labels or ()]
    rows = (
        {
            "question": format.input_text(values),
            "context": format.passage(values) or None,
            "options": field_at(values, roles.options) if roles.options else labels,
            "label": _answer(values, format),
        }
        for values in run.examples()
    )
    _write_lines(path, rows)
    return _left_out(format, "reference")


def _chat(run: RunDirectory, path: Path) -> str:
    """One conversation per line, for fine-tuning a language model.

    A conversation stays as it is. Else the user's turn holds the passage, the other inputs and the options, the
    assistant's turn the answer. Without inputs or an answer the assistant's turn is the whole example as JSON.
    """
    format = run.read_config().format
    _write_lines(path, (_conversation(values, format) for values in run.examples()))
    return _left_out(format, "chat", "tools")


def _conversation(values: dict[str, Json], format: TaskFormat) -> dict[str, Json]:
    if format.roles.turns:
        return {"messages": as_messages(field_at(values, format.roles.turns))}
    system, parts, answer = _prompt_and_answer(values, format)
    contents = {"system": system, "user": "\n\n".join(filter(None, parts)), "assistant": answer}
    messages = [
        {"role": role, "content": text} for role, text in contents.items() if text or role != "system"
    ]
    tools = format.roles.tools
    return {"messages": messages} | ({"tools": field_at(values, tools)} if tools else {})


def _alpaca(run: RunDirectory, path: Path) -> str:
    """Rows with instruction, input and output, and system if there is one. Raises RunError for longer conversations."""
    format = run.read_config().format
    rows = (_alpaca_row(values, format, run.path) for values in run.examples())
    _write_lines(path, rows)
    return _left_out(format, "alpaca")


def _alpaca_row(values: dict[str, Json], format: TaskFormat, run: Path) -> dict[str, Json]:
    if format.roles.turns:
        *first, user, answer = [turn["content"] for turn in as_messages(field_at(values, format.roles.turns))]
        if len(first) > 1:
            raise RunError(f"{run}: an alpaca row has one turn of the user, these have more; export chat")
        system, instruction, given = "".join(first), user, ""
    else:
        system, (context, question, options), answer = _prompt_and_answer(values, format)
        if instructions := [path for path in format.roles.inputs if path[-1].casefold() == "instruction"]:
            instruction = _named_texts(values, instructions)
            others = [path for path in _asked(format) if path not in instructions]
            question = _named_texts(values, others)
        else:
            instruction, question = question or context, ""
            context = context if instruction != context else ""
        given = "\n\n".join(filter(None, (context, question, options)))
    row = {"instruction": instruction, "input": given, "output": answer}
    return row | ({"system": system} if system else {})


def _preference(run: RunDirectory, path: Path) -> str:
    """Rows with prompt, chosen and rejected."""
    format = run.read_config().format
    if format.roles.rejected is None:
        raise RunError(
            f"{run.path}: the preference layout needs a chosen and a rejected answer; export chat or alpaca"
        )
    rows = []
    for values in run.examples():
        system, parts, chosen = _prompt_and_answer(values, format)
        prompt = "\n\n".join(filter(None, (system, *parts)))
        rejected = _text(field_at(values, format.roles.rejected))
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    _write_lines(path, rows)
    return _left_out(format, "preference", "rejected")


_SYSTEM = ("system", "system_prompt")
"""Names of an input that is a system message."""


def _prompt_and_answer(values: dict[str, Json], format: TaskFormat) -> tuple[str, tuple[str, str, str], str]:
    """The system message; passage, other inputs and options; the answer."""
    roles = format.roles
    if not _has_answer(format):
        return "", ("", "Write one example.", ""), json.dumps(values, ensure_ascii=False)
    system = [path for path in roles.inputs if path[-1].casefold() in _SYSTEM]
    listed = field_at(values, roles.options) if roles.options else ()
    options = "\n".join(f"- {_text(option)}" for option in listed)
    context = _named_texts(values, filter(None, [format.passage_field]))
    if roles.tags:
        lists = [field_at(values, path) for path in (roles.inputs[0], *roles.tags)]
        answer = json.dumps(list(zip(*lists, strict=True)), ensure_ascii=False)
        return "", ("", format.input_text(values), ""), answer
    answer = _text(field_at(values, roles.call) if roles.call else _answer(values, format))
    return _named_texts(values, system), (context, _named_texts(values, _asked(format)), options), answer


def _answer(values: dict[str, Json], format: TaskFormat) -> Json:
    """The answer; in words, where the field holds a position, a letter or a list of spans."""
    in_words = format.answers.are_coded or format.roles.answer_start
    return format.answers.text(values) if in_words else field_at(values, format.roles.answer or ())


def _has_answer(format: TaskFormat) -> bool:
    return bool(format.roles.inputs and (format.roles.answer or format.roles.tags))


def _asked(format: TaskFormat) -> list[FieldPath]:
    """The inputs that are neither the passage nor a system message."""
    others = (path for path in format.roles.inputs if path != format.passage_field)
    return [path for path in others if path[-1].casefold() not in _SYSTEM]


def _named_texts(values: dict[str, Json], paths: Iterable[FieldPath]) -> str:
    """The texts of these inputs; of several, each on a line with its name."""
    texts = {path: text for path in paths if (text := _text(value_at(values, path)))}
    named = [f"{dotted(path)}: {text}" for path, text in texts.items()]
    return "\n".join(named if len(texts) > 1 else texts.values())


def _text(value: Json) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    is_nested = isinstance(value, dict | list)
    return json.dumps(value, ensure_ascii=False) if is_nested else "" if value is None else str(value)


def _left_out(format: TaskFormat, layout: str, *more: str) -> str:
    """A line about the fields that the layout has no place for; "" if none. `more` are roles that it has besides."""
    if not _has_answer(format) and not format.roles.turns:
        return ""  # the whole example is the answer
    shown = ("options", "answer", "turns", *more)
    used = {path for role, path in format.roles.single().items() if role in shown}
    used |= {*format.roles.inputs, *format.roles.tags}
    if layout != "reference" and format.roles.call:  # which has the name only
        used.add(format.roles.call)
    others = [path for path, _ in leaves(format.schema) if not any(path[: len(u)] == u for u in used)]
    names = ", ".join(map(dotted, others))
    return f"the {layout} layout leaves out {names}; export hf or csv for all fields" if others else ""


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
    "alpaca": ("train_alpaca.jsonl", _alpaca),
    "preference": ("train_preference.jsonl", _preference),
}
"""Layout -> name of its file, "" for a folder, and the function that writes it. It may return a line for the user."""
