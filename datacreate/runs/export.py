"""Writes a run's examples in the layouts that other programs read, as one file or split by family."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from datacreate.errors import RunError, UsageError
from datacreate.files import refuse_links
from datacreate.formats.example import FieldPath, Json, dotted, field_at, one_line, value_at
from datacreate.formats.rules import as_messages
from datacreate.formats.schema_utils import Schema, leaf_schemas
from datacreate.formats.task_format import TaskFormat
from datacreate.locking import exclusive_replacement
from datacreate.messages import Notify, no_notify
from datacreate.runs.attributes import attribute_field
from datacreate.runs.directory import RunDirectory, StoredConfig
from datacreate.runs.log import example_line
from datacreate.settings import check_shares

Values = dict[str, Json]

_SPLIT_NAME = re.compile(r"[A-Za-z0-9_]+")
_ROUNDING = 1e-6  # rows that a split may lack for a family to fit
_SYSTEM = ("system", "system_prompt")  # names of an input that is a system message


def export(
    run: RunDirectory,
    layout: str,
    target: Path | None = None,
    *,
    split: Mapping[str, float] | None = None,
    seed: int = 42,
    with_attributes: bool = False,
    partial: bool = False,
    notify: Notify = no_notify,
) -> list[Path]:
    """Write the examples in a layout of `LAYOUTS` into the folder `target` (default: in the run); returns the paths.

    `split`: the share of each file; rows of one family stay together (see `RunDirectory.families`). `notify` gets a
    line about the splits, and one about fields that the layout changes or leaves out. Raises RunError if the run is not
    finished (unless `partial`), UsageError for wrong shares or a layout that the run does not fit, RunLocked if another
    process writes there, StorageError. An older export is replaced; after an error it stays.
    """
    config, accepted = run.read_config(), run.stats().accepted
    if accepted < config.count and not partial:
        raise RunError(
            f"{run.path}: not finished, {accepted} of {config.count} examples; finish it with the same `create` "
            "command, or export what there is with --partial"
        )
    splits = _splits(run, split, seed, notify) if split else dict.fromkeys(["train"])
    columns = _columns(config, layout, with_attributes=with_attributes)
    rows = {name: _rows_of_split(run, numbers, with_attributes=with_attributes) for name, numbers in splits.items()}
    folder = target.resolve() if target else run.path / "export" / layout
    if not target:
        refuse_links(folder.parent, folder)
    if layout == "hf" and folder.is_dir() and any(folder.iterdir()) and not (folder / "dataset_dict.json").is_file():
        raise UsageError(f"{folder} has other files and no data set; choose another --out")
    paths = [folder] if layout == "hf" else [folder / _file_name(name, layout) for name in splits]
    if any(RunDirectory(folder).owns(path) for path in paths):
        raise UsageError(f"--out {target}: that would overwrite the rows of a run; choose another --out")
    with ExitStack() as stack:
        parts = [stack.enter_context(exclusive_replacement(path, notify)) for path in paths]
        note = _write(layout, config.format, columns, rows, parts)
    if not target:  # a split of an older export would be read with the new ones
        for path in set(folder.glob(_file_name("*", layout))) - set(paths):
            path.unlink()
    if note:
        notify(note)
    return paths


def _columns(config: StoredConfig, layout: str, *, with_attributes: bool) -> dict[str, Schema]:
    """The JSON Schema of each column of a table."""
    columns = dict(config.format.schema["properties"])
    if not with_attributes:
        return columns
    if not config.spec.attributes:
        raise UsageError("--with-attributes: the run has no attributes; remove the option")
    if layout not in _WHOLE_ROW_LAYOUTS:
        raise UsageError(f"--with-attributes: choose a --layout of {', '.join(_WHOLE_ROW_LAYOUTS)}")
    return columns | {attribute_field(each.name): {"type": "string"} for each in config.spec.attributes}


def _rows_of_split(run: RunDirectory, numbers: set[int] | None, *, with_attributes: bool) -> Iterator[Values]:
    """The examples with these numbers, from 0; None for all."""
    for number, values in enumerate(run.examples(with_attributes=with_attributes)):
        if numbers is None or number in numbers:
            yield values


def _write(
    layout: str,
    task_format: TaskFormat,
    columns: Mapping[str, Schema],
    rows: Mapping[str, Iterator[Values]],
    paths: Sequence[Path],
) -> str:
    """Write each split to its file, or all to one folder; returns a line about fields that change or are left out."""
    if as_row := _JSONL_LAYOUTS.get(layout):
        for rows_of_split, path in zip(rows.values(), paths, strict=True):
            with path.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{example_line(as_row(values, task_format))}\n" for values in rows_of_split)
        return "" if layout == "jsonl" else _left_out(task_format, layout)
    from datacreate.runs import table_export

    if layout == "hf":
        table_export.write_datasets(columns, rows, paths[0])
    else:
        write = table_export.write_csv if layout == "csv" else table_export.write_parquet
        for rows_of_split, path in zip(rows.values(), paths, strict=True):
            write(columns, rows_of_split, path)
    as_text = [] if layout == "csv" else table_export.text_columns(columns)
    names = ", ".join(map(one_line, as_text))
    return f"as JSON text, since a column cannot hold their values: {names}" if names else ""


def _left_out(task_format: TaskFormat, layout: str) -> str:
    """A line about the fields that the layout has no place for; "" if none."""
    if not _has_answer(task_format) and not task_format.roles.turns:
        return ""  # the whole example is the answer
    exported = ("options", "answer", "turns", {"chat": "tools", "preference": "rejected"}.get(layout))
    used = {path for role, paths in task_format.roles.paths().items() if role in exported for path in paths}
    used |= {*task_format.roles.inputs, *task_format.roles.tags, *filter(None, [task_format.roles.call])}
    others = [path for path, _ in leaf_schemas(task_format.schema) if not any(path[: len(own)] == own for own in used)]
    names = ", ".join(map(dotted, others))
    return f"the {layout} layout leaves out {names}; export hf or csv for all fields" if names else ""


def _file_name(split: str, layout: str) -> str:
    return f"{split}.{layout}" if layout in _WHOLE_ROW_LAYOUTS else f"{split}_{layout}.jsonl"


def _splits(run: RunDirectory, shares: Mapping[str, float], seed: int, notify: Notify) -> dict[str, set[int] | None]:
    """The numbers of the rows of each split, from 0."""
    check_shares("--split", shares)
    for name in shares:
        if not _SPLIT_NAME.fullmatch(name):
            raise UsageError(f"--split {name}: a name has letters, digits and _ only; choose another")
    families = list(run.families())
    assigned = assign_families(Counter(families), shares, seed)
    rows: dict[str, set[int] | None] = {
        name: {number for number, family in enumerate(families) if assigned[family] == name} for name in shares
    }
    for name, numbers in rows.items():
        if not numbers:
            raise UsageError(
                f"--split: {len(families)} rows in {len(assigned)} families leave no row for {name}; give it a larger "
                "share, or use a larger run"
            )
    counts = ", ".join(f"{name} {len(numbers or ())}" for name, numbers in rows.items())
    source = "passage" if run.read_config().spec.corpus else "parent"
    notify(f"split by family (rows of one {source}), seed {seed}: {counts} rows, {len(assigned)} families")
    return rows


def assign_families(sizes: Mapping[int, int], shares: Mapping[str, float], seed: int) -> dict[int, str]:
    """The split of each family, given its number of rows. Each split is within one family of its share.

    Large families are assigned first, those of one size in random order. A family goes to a split that still needs so
    many rows, drawn by need, or to the one that needs most.
    """
    rng = random.Random(f"{seed}:split")
    total = sum(sizes.values())
    needs = {name: share * total for name, share in shares.items()}  # rows
    assigned = {}
    for family in sorted(rng.sample(list(sizes), len(sizes)), key=sizes.__getitem__, reverse=True):
        fitting = {name: need for name, need in needs.items() if need + _ROUNDING >= sizes[family]}
        if fitting:
            [name] = rng.choices(list(fitting), list(fitting.values()))
        else:
            name = max(needs, key=needs.__getitem__)
        needs[name] -= sizes[family]
        assigned[family] = name
    return assigned


def _chat(values: Values, task_format: TaskFormat) -> Values:
    """A conversation, for fine-tuning a language model.

    A conversation stays as it is. Else the user's turn holds the passage, the other inputs and the options, the
    assistant's turn the answer. Without inputs or an answer the assistant's turn is the whole example as JSON. A call
    and its tools are written as chat templates and trainers (transformers, TRL) read them.
    """
    if task_format.roles.turns:
        return {"messages": as_messages(field_at(values, task_format.roles.turns))}
    exchange = _exchange(values, task_format)
    contents = {"system": exchange.system, "user": exchange.user, "assistant": exchange.answer}
    messages: list[Json] = [
        {"role": role, "content": text} for role, text in contents.items() if text or role != "system"
    ]
    roles = task_format.roles
    if not roles.tools or not roles.call:
        return {"messages": messages}
    messages[-1] = {"role": "assistant", "content": "", "tool_calls": [_wrapped(field_at(values, roles.call))]}
    return {"messages": messages, "tools": [_wrapped(tool) for tool in field_at(values, roles.tools)]}


def _wrapped(function: Mapping[str, Json]) -> Json:
    """A function or its call as in OpenAI's API, in which some tools are already."""
    return function if "function" in function else {"type": "function", "function": function}


def _alpaca(values: Values, task_format: TaskFormat) -> Values:
    """Instruction, input and output, and system if there is one."""
    if task_format.roles.turns:
        *first, user, answer = [turn["content"] for turn in as_messages(field_at(values, task_format.roles.turns))]
        if len(first) > 1:
            raise UsageError("--layout alpaca: a row has one turn of the user, these have more; export chat")
        exchange = _Exchange(system="".join(first), question=user, answer=answer)
    else:
        exchange = _exchange(values, task_format)
    instructions = [path for path in task_format.roles.inputs if path[-1].casefold() == "instruction"]
    if instructions and not task_format.roles.turns:
        instruction = _named_texts(values, instructions)
        others = [path for path in _question_fields(task_format) if path not in instructions]
        rest = exchange._replace(question=_named_texts(values, others))
    else:
        instruction = exchange.question or exchange.context
        context = exchange.context if exchange.context != instruction else ""
        rest = exchange._replace(question="", context=context)
    row = {"instruction": instruction, "input": rest.user, "output": exchange.answer}
    return row | ({"system": exchange.system} if exchange.system else {})


def _preference(values: Values, task_format: TaskFormat) -> Values:
    """Prompt, chosen and rejected."""
    if task_format.roles.rejected is None:
        raise UsageError("--layout preference: needs a chosen and a rejected answer; export chat or alpaca")
    exchange = _exchange(values, task_format)
    prompt = _paragraphs(exchange.system, exchange.user)
    rejected = _text(field_at(values, task_format.roles.rejected))
    return {"prompt": prompt, "chosen": exchange.answer, "rejected": rejected}


class _Exchange(NamedTuple):
    """An example as a prompt and its answer."""

    question: str  # the inputs that are neither a passage nor a system message
    answer: str
    context: str = ""  # the passage
    options: str = ""
    system: str = ""

    @property
    def user(self) -> str:
        return _paragraphs(self.context, self.question, self.options)


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))


def _exchange(values: Values, task_format: TaskFormat) -> _Exchange:
    roles = task_format.roles
    if not _has_answer(task_format):
        return _Exchange("Write one example.", json.dumps(values, ensure_ascii=False))
    if roles.tags:
        lists = [field_at(values, path) for path in (roles.inputs[0], *roles.tags)]
        return _Exchange(
            task_format.text_for_model(values), json.dumps(list(zip(*lists, strict=True)), ensure_ascii=False)
        )
    if roles.call:
        answer = field_at(values, roles.call)
    elif task_format.answers.are_keys or roles.answer_start:
        answer = task_format.answers.text(values)  # in words, not as a position, a letter or a list of spans
    else:
        answer = field_at(values, roles.answer or ())
    options = field_at(values, roles.options) if roles.options else ()
    return _Exchange(
        question=_named_texts(values, _question_fields(task_format)),
        answer=_text(answer),
        context=_named_texts(values, filter(None, [task_format.passage_field])),
        options="\n".join(f"- {_text(option)}" for option in options),
        system=_named_texts(values, [path for path in roles.inputs if path[-1].casefold() in _SYSTEM]),
    )


def _has_answer(task_format: TaskFormat) -> bool:
    return bool(task_format.roles.inputs and (task_format.roles.answer or task_format.roles.tags))


def _question_fields(task_format: TaskFormat) -> list[FieldPath]:
    """The inputs that are neither the passage nor a system message."""
    others = (path for path in task_format.roles.inputs if path != task_format.passage_field)
    return [path for path in others if path[-1].casefold() not in _SYSTEM]


def _named_texts(values: Values, paths: Iterable[FieldPath]) -> str:
    """The texts of these inputs; of several, each on a line with its name."""
    texts = {path: text for path in paths if (text := _text(value_at(values, path)))}
    named = [f"{dotted(path)}: {text}" for path, text in texts.items()]
    return "\n".join(named if len(texts) > 1 else texts.values())


def _text(value: Json) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


_JSONL_LAYOUTS: dict[str, Callable[[Values, TaskFormat], Values]] = {
    "jsonl": lambda values, _: values,
    "chat": _chat,
    "alpaca": _alpaca,
    "preference": _preference,
}
"""Layout -> a row of its JSONL file, from an example and the format."""

_WHOLE_ROW_LAYOUTS = ("jsonl", "hf", "parquet", "csv")  # those with all fields of an example
LAYOUTS = ("hf", "parquet", "csv", *_JSONL_LAYOUTS)  # hf is a folder
