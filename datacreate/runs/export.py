"""Writes a run's examples in the layouts that other programs read, as one file or split by family."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from datacreate.errors import RunError, UsageError
from datacreate.files import refuse_links
from datacreate.formats.example import FieldPath, Json, dotted, field_at, value_at
from datacreate.formats.rules import as_messages
from datacreate.formats.schema_utils import Schema, leaves
from datacreate.formats.task_format import TaskFormat
from datacreate.locking import exclusive_replacement
from datacreate.messages import Notify, no_notify
from datacreate.runs.attributes import attribute_field
from datacreate.runs.directory import RunDirectory
from datacreate.settings import check_shares

Values = dict[str, Json]


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
    line about the splits, and one about what the layout holds in another form, or not at all. Raises RunError if the
    run is not finished (unless `partial`) or does not fit the layout, UsageError for wrong shares, RunLocked if another
    process writes there, StorageError. An older export is replaced; after an error it stays.
    """
    config, accepted = run.read_config(), run.stats().accepted
    if accepted < config.count and not partial:
        raise RunError(
            f"{run.path}: not finished, {accepted} of {config.count} examples; finish it with the same `create` "
            "command, or export what there is with --partial"
        )
    splits = _splits(run, split, seed, notify) if split else dict.fromkeys(["train"])
    columns = dict(config.format.schema["properties"])
    if with_attributes:
        if not config.spec.attributes:
            raise UsageError("--with-attributes: the run has no attributes; remove the option")
        if layout not in _WITH_ATTRIBUTES:
            raise UsageError(f"--with-attributes: choose a --layout of {', '.join(_WITH_ATTRIBUTES)}")
        columns |= {attribute_field(each.name): {"type": "string"} for each in config.spec.attributes}

    def rows_of(numbers: set[int] | None) -> Iterator[Values]:
        for number, values in enumerate(run.examples(with_attributes=with_attributes)):
            if numbers is None or number in numbers:
                yield values

    is_own = target is None
    target = run.path / "export" / layout if target is None else target.resolve()
    if is_own:
        refuse_links(target.parent, target)
    if layout == "hf":
        from datacreate.runs.tables import write_datasets

        if target.is_dir() and any(target.iterdir()) and not (target / "dataset_dict.json").is_file():
            raise UsageError(f"{target} has other files and no data set; choose another --out")
        paths = {"": target}
        with exclusive_replacement(target, notify) as folder:
            rows = {name: rows_of(numbers) for name, numbers in splits.items()}
            notes = [write_datasets(columns, rows, folder)]
    else:
        paths = {name: target / _file_name(name, layout) for name in splits}
        with ExitStack() as stack:
            written = {
                name: stack.enter_context(exclusive_replacement(path, notify)) for name, path in paths.items()
            }
            notes = [
                _write(layout, config.format, columns, rows_of(splits[name]), path)
                for name, path in written.items()
            ]
        if is_own:  # a split of an older export would be read with the new ones
            for path in set(target.glob(_file_name("*", layout))) - set(paths.values()):
                path.unlink()
    for note in dict.fromkeys(filter(None, notes)):
        notify(note)
    return list(paths.values())


_SPLIT_NAME = re.compile(r"[A-Za-z0-9_]+")


def _splits(
    run: RunDirectory, shares: Mapping[str, float], seed: int, notify: Notify
) -> dict[str, set[int] | None]:
    """The numbers of the rows of each split, from 0."""
    check_shares("--split", shares)
    if wrong := [name for name in shares if not _SPLIT_NAME.fullmatch(name)]:
        raise UsageError(f"--split {wrong[0]}: a name has letters, digits and _ only; choose another")
    families = list(run.families())
    assigned = assign_families(Counter(families), shares, seed)
    rows: dict[str, set[int] | None] = {
        name: {number for number, family in enumerate(families) if assigned[family] == name}
        for name in shares
    }
    counts = {name: len(numbers or ()) for name, numbers in rows.items()}
    found = ", ".join(f"{name} {n}" for name, n in counts.items())
    if empty := [name for name, n in counts.items() if not n]:
        raise UsageError(
            f"--split: {len(families)} rows in {len(assigned)} families leave no row for {empty[0]}; give it a larger "
            "share, or use a larger run"
        )
    of = "passage" if run.read_config().spec.corpus else "parent"
    notify(f"split by family (rows of one {of}), seed {seed}: {found} rows, {len(assigned)} families")
    return rows


def assign_families(sizes: Mapping[int, int], shares: Mapping[str, float], seed: int) -> dict[int, str]:
    """The split of each family, given its number of rows. Each split is within one family of its share.

    Each goes to a split where it still fits, drawn by what the splits still need: the largest first, so that small ones
    fill what is left; those of one size in random order.
    """
    rng = random.Random(f"{seed}:split")
    total = sum(sizes.values())
    needs = {name: share * total for name, share in shares.items()}
    assigned = {}
    for family in sorted(rng.sample(list(sizes), len(sizes)), key=lambda each: -sizes[each]):
        fitting = {name: need for name, need in needs.items() if need + 1e-6 >= sizes[family]}
        if fitting:
            [name] = rng.choices(list(fitting), list(fitting.values()))
        else:
            name = max(needs, key=lambda each: needs[each])
        needs[name] -= sizes[family]
        assigned[family] = name
    return assigned


def _chat(values: Values, format: TaskFormat) -> Values:
    """A conversation, for fine-tuning a language model.

    A conversation stays as it is. Else the user's turn holds the passage, the other inputs and the options, the
    assistant's turn the answer. Without inputs or an answer the assistant's turn is the whole example as JSON.
    """
    if format.roles.turns:
        return {"messages": as_messages(field_at(values, format.roles.turns))}
    system, parts, answer = _prompt_and_answer(values, format)
    contents = {"system": system, "user": "\n\n".join(filter(None, parts)), "assistant": answer}
    messages = [
        {"role": role, "content": text} for role, text in contents.items() if text or role != "system"
    ]
    tools = format.roles.tools
    return {"messages": messages} | ({"tools": field_at(values, tools)} if tools else {})


def _alpaca(values: Values, format: TaskFormat) -> Values:
    """Instruction, input and output, and system if there is one."""
    if format.roles.turns:
        *first, user, answer = [turn["content"] for turn in as_messages(field_at(values, format.roles.turns))]
        if len(first) > 1:
            raise UsageError("--layout alpaca: a row has one turn of the user, these have more; export chat")
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


def _preference(values: Values, format: TaskFormat) -> Values:
    """Prompt, chosen and rejected."""
    if format.roles.rejected is None:
        raise UsageError("--layout preference: needs a chosen and a rejected answer; export chat or alpaca")
    system, parts, chosen = _prompt_and_answer(values, format)
    rejected = _text(field_at(values, format.roles.rejected))
    return {"prompt": "\n\n".join(filter(None, (system, *parts))), "chosen": chosen, "rejected": rejected}


_SYSTEM = ("system", "system_prompt")
"""Names of an input that is a system message."""


def _prompt_and_answer(values: Values, format: TaskFormat) -> tuple[str, tuple[str, str, str], str]:
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
    if roles.call:
        given = field_at(values, roles.call)
    elif format.answers.are_coded or roles.answer_start:
        given = format.answers.text(values)  # in words, not as a position, a letter or a list of spans
    else:
        given = field_at(values, roles.answer or ())
    return (
        _named_texts(values, system),
        (context, _named_texts(values, _asked(format)), options),
        _text(given),
    )


def _has_answer(format: TaskFormat) -> bool:
    return bool(format.roles.inputs and (format.roles.answer or format.roles.tags))


def _asked(format: TaskFormat) -> list[FieldPath]:
    """The inputs that are neither the passage nor a system message."""
    others = (path for path in format.roles.inputs if path != format.passage_field)
    return [path for path in others if path[-1].casefold() not in _SYSTEM]


def _named_texts(values: Values, paths: Iterable[FieldPath]) -> str:
    """The texts of these inputs; of several, each on a line with its name."""
    texts = {path: text for path in paths if (text := _text(value_at(values, path)))}
    named = [f"{dotted(path)}: {text}" for path, text in texts.items()]
    return "\n".join(named if len(texts) > 1 else texts.values())


def _text(value: Json) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    is_nested = isinstance(value, dict | list)
    return json.dumps(value, ensure_ascii=False) if is_nested else "" if value is None else str(value)


def _left_out(format: TaskFormat, layout: str) -> str:
    """A line about the fields that the layout has no place for; "" if none."""
    if not _has_answer(format) and not format.roles.turns:
        return ""  # the whole example is the answer
    shown = ("options", "answer", "turns", {"chat": "tools", "preference": "rejected"}.get(layout))
    used = {path for role, path in format.roles.single().items() if role in shown}
    used |= {*format.roles.inputs, *format.roles.tags, *filter(None, [format.roles.call])}
    others = [path for path, _ in leaves(format.schema) if not any(path[: len(u)] == u for u in used)]
    names = ", ".join(map(dotted, others))
    return f"the {layout} layout leaves out {names}; export hf or csv for all fields" if others else ""


_ROWS: dict[str, Callable[[Values, TaskFormat], Values]] = {
    "jsonl": lambda values, _: values,
    "chat": _chat,
    "alpaca": _alpaca,
    "preference": _preference,
}
"""Layout -> a line of its file, from an example and the format."""

_WITH_ATTRIBUTES = ("jsonl", "hf", "parquet", "csv")

LAYOUTS = ("hf", "parquet", "csv", *_ROWS)
"""The layouts; `hf` is a folder."""


def _file_name(split: str, layout: str) -> str:
    return f"{split}.{layout}" if layout in _WITH_ATTRIBUTES else f"{split}_{layout}.jsonl"


def _write(
    layout: str, format: TaskFormat, columns: Mapping[str, Schema], rows: Iterator[Values], path: Path
) -> str:
    """Write the rows of one file; returns a line for the user, or ""."""
    if layout in ("csv", "parquet"):
        from datacreate.runs.tables import write_csv, write_parquet

        return (write_csv if layout == "csv" else write_parquet)(columns, rows, path)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for values in rows:
            file.write(json.dumps(_ROWS[layout](values, format), ensure_ascii=False) + "\n")
    return "" if layout == "jsonl" else _left_out(format, layout)
