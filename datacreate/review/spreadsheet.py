"""Rows as texts that people edit: fields in the editor, and the cells of a CSV file for a spreadsheet.

The file has a line per row. Its columns: `id` (the number of the row), `label`, `probabilities`, `flags`, `decision`,
`reason`, `version` (of the row's values), and `field:NAME` for each field. A reviewer fills in `decision` (accept,
reject or edit) and `reason`, and changes the fields of edited rows.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import cast, get_args

from datacreate.errors import DecisionRefused, UsageError
from datacreate.formats.example import Example, Json
from datacreate.formats.row_file import RawRow, RowFile
from datacreate.formats.schema_utils import is_constant
from datacreate.locking import exclusive_replacement
from datacreate.messages import Notify, no_notify, safe_json, safe_line, safe_text
from datacreate.review.session import Change, ReviewRow, ReviewSession
from datacreate.runs.decisions import Decision, Verdict

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""A spreadsheet runs a cell that starts with one of these; an apostrophe before it makes it a text."""

_MAX_ERRORS = 20  # lines with errors that are shown


def editable_text(value: Json) -> str:
    """A value as text: a text as it is, texts in lines, everything else as JSON; null is empty."""
    if value is None:
        return ""
    if _is_plain(value):
        return cast(str, value)
    if _are_lines(value):
        return "\n".join(value)
    return safe_json(value)


def edited_value(text: str, old_value: Json) -> Json:
    """The value of an edited text, of the kind that the old value has. Raises ValueError, in a few words."""
    if old_value is None:
        return text or None
    if _is_plain(old_value):
        return text
    if _are_lines(old_value):
        return text.strip("\n").split("\n")
    if isinstance(old_value, bool):
        text = text.strip().lower()  # a spreadsheet writes TRUE
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"not JSON; write it like {safe_json(old_value)[:40]}") from None


def _is_plain(value: Json) -> bool:
    """Whether a value is a text that can be shown as it is: without characters that hide or reorder text."""
    return isinstance(value, str) and "\r" not in value and safe_text(value) == value


def _are_lines(value: Json) -> bool:
    lines = value if isinstance(value, list) else ()
    return bool(lines) and all(_is_plain(line) and line and "\n" not in line for line in lines)


def editable_fields(session: ReviewSession, row: ReviewRow) -> list[str]:
    """The fields of a row that are not the same in all rows, without a passage of a document."""
    task_format, properties = session.format, session.format.schema["properties"]
    document_passage = task_format.roles.context if task_format.context_is_given else None
    varying = [name for name in row.values if name not in properties or not is_constant(properties[name])]
    return [name for name in varying if (name,) != document_passage]


def probabilities_text(session: ReviewSession, row: ReviewRow) -> str:
    """The verifier's probability of each possible answer."""
    answers = map(str, session.format.answers.choices(row.values))
    return ", ".join(f"{answer} {p:.2f}" for answer, p in zip(answers, row.probabilities, strict=False))


def write_spreadsheet(session: ReviewSession, rows: Iterable[ReviewRow], path: Path, notify: Notify) -> None:
    """Write rows as CSV: UTF-8 with a byte order mark, which spreadsheets need.

    Raises UsageError if the file exists: it may hold decisions that are not in the run; StorageError, RunLocked.
    """
    names = session.fields
    if path.exists():
        raise UsageError(f"--export {path}: it exists, maybe with decisions; give another file, or remove it")
    with exclusive_replacement(path, notify) as part, part.open("x", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        columns = ["id", "label", "probabilities", "flags", "decision", "reason", "version"]
        writer.writerow(columns + [f"field:{name}" for name in names])
        for row in rows:
            decision = row.decision
            cells = [
                str(row.number),
                session.format.answers.text(row.values) if session.format.roles.answer else "",
                probabilities_text(session, row),
                ", ".join(row.flags(session.format)),
                decision.verdict if decision else "",
                decision.reason if decision else "",
                _version(row),
                *(editable_text(row.values.get(name)) for name in names),
            ]
            writer.writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])


def read_spreadsheet(session: ReviewSession, path: Path, notify: Notify = no_notify) -> int:
    """Make the decisions in a file of `write_spreadsheet`; returns how many are new.

    Raises UsageError if the file is not an export of the run, or if a decision is wrong, after a line for each to
    `notify`; none is made then.
    """
    changes: list[Change] = []
    line_of_row: dict[int, int] = {}
    errors: list[tuple[int, str]] = []
    file = RowFile(path)
    for line in file.read():
        if not file.values_are_text:
            raise UsageError(f"{path}: not a CSV file; give one of --export")
        try:
            cells = _cells(session, path, line)
            row = _row(session, cells["id"], line_of_row)
            line_of_row[row.number] = line.number
            if change := _change(row, cells):
                changes.append(change)
        except ValueError as error:
            errors.append((line.number, str(error)))
    decisions: list[Decision] = []
    for change, decision in zip(changes, session.prepare(changes), strict=True):
        if isinstance(decision, DecisionRefused):
            errors.append((line_of_row[change.row.number], str(decision)))
        else:
            decisions.append(decision)
    for number, message in sorted(errors)[:_MAX_ERRORS]:
        notify(f"{path}: line {number}: {message}")
    if errors:
        lines = f"{len(errors)} line{'s' * (len(errors) != 1)}"
        raise UsageError(f"{path}: nothing was imported; correct {lines} and import again")
    if decisions:
        session.save(decisions)
    return len(decisions)


def _cells(session: ReviewSession, path: Path, line: RawRow) -> dict[str, str]:
    """The text of each column. Raises ValueError for a damaged line, UsageError if a column is missing."""
    if line.error:
        raise ValueError(line.error)
    texts = {name: str(value or "").replace("\r\n", "\n") for name, value in line.values.items()}
    for name in ("id", "decision", *(f"field:{name}" for name in session.fields), "version"):
        if name not in texts:
            raise UsageError(f"{path}: no column {name!r}; give a file of --export with all its columns")
    return {name: text.removeprefix("'") for name, text in texts.items()}


def _version(row: ReviewRow) -> str:
    """A hash of the row's values. It begins with a letter, so that a spreadsheet takes no digits for a number."""
    return f"v{Example(row.values).id[:8]}"


def _row(session: ReviewSession, row_id: str, earlier_rows: Container[int]) -> ReviewRow:
    """The row with this id, which is none of the rows of earlier lines. Raises ValueError, in a few words."""
    number = int(row_id) if row_id.strip().isascii() and row_id.strip().isdigit() else 0
    if not 1 <= number <= len(session.rows):
        raise ValueError(f"id {safe_line(row_id[:20])!r}: no row of this run")
    if number in earlier_rows:
        raise ValueError(f"id {number}: a line above also has this id; keep one")
    return session.rows[number - 1]


def _change(row: ReviewRow, cells: Mapping[str, str]) -> Change | None:
    """The decision that a line asks for; None for nothing new. Raises ValueError, in a few words."""
    verdict, reason = cells["decision"].strip().lower(), " ".join(cells.get("reason", "").split())
    if verdict and verdict not in get_args(Verdict):
        raise ValueError(f"decision {safe_line(verdict[:20])!r}; write accept, reject or edit, or leave it empty")
    if verdict == "reject" and not reason:
        raise ValueError("a rejected row needs a reason")
    values = _values(row, cells)
    changed = [name for name, value in values.items() if value != row.values[name]]
    if changed and cells["version"] != _version(row):
        raise ValueError(f"row {row.number} has changed since the export; export it again, and edit that")
    if changed and verdict != "edit":
        name = safe_line(changed[0])
        raise ValueError(
            f"field:{name} differs from row {row.number}; write `edit` in the decision column to change it"
        )
    last = row.decision if row.decision and row.decision.verdict == verdict else None
    was_imported = last is not None and (not changed if verdict == "edit" else last.reason == reason)
    if not verdict or was_imported:
        return None
    return Change(row, cast(Verdict, verdict), reason, values if verdict == "edit" else None)


def _values(row: ReviewRow, cells: Mapping[str, str]) -> dict[str, Json]:
    """The values of a row in its line. Raises ValueError, in a few words, for one of another kind."""
    values = dict(row.values)
    for name, value in row.values.items():
        cell = cells[f"field:{name}"]
        if cell != editable_text(value).replace("\r\n", "\n"):
            try:
                values[name] = edited_value(cell, value)
            except ValueError as error:
                raise ValueError(f"field:{safe_line(name)}: {error}") from None
    return values
