"""Reads documents: text files, Markdown, HTML, PDF, Word, and tables with a text in each row.

The text of a document has "\\n" as its only line end, and spaces for control characters: PDF files have form feeds, and
an example with such a character is not valid.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from datacreate.errors import UsageError
from datacreate.formats.example import Json, one_line
from datacreate.formats.reader import RowFile, decoded

_TABLES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"}
_MARKDOWN = {".md", ".markdown"}
_CONVERTED = {
    ".html": "HtmlConverter",
    ".htm": "HtmlConverter",
    ".pdf": "PdfConverter",
    ".docx": "DocxConverter",
}
"""Ending -> the class of markitdown that makes Markdown of such a file."""

_ENDINGS = {".txt", *_MARKDOWN, *_CONVERTED, *_TABLES}

_READABLE = "give .txt, .md, .html, .pdf, .docx, .jsonl, .csv, .parquet, or a folder of them"

_LARGEST = 100 << 20
"""Bytes of a file that is one document: it is read as a whole."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd-\uffff]")
_LINE_ENDS = re.compile(r"\r\n?")


@dataclass(frozen=True)
class Document:
    """A text that passages are cut from."""

    file: Path  # the path as the user typed it; of a file in a folder, that of the folder and the rest
    row: int | None  # of a table, from 1
    text: str
    is_markdown: bool


def display_path(file: Path) -> str:
    """The path of a file for people and for sources.jsonl."""
    return one_line(str(file))


def find_files(paths: Sequence[str]) -> list[Path]:
    """The files with documents at these paths, those of a folder in the order of their names; each once.

    Folders are searched with their folders, but not through links to folders. Files of unknown kinds in a folder,
    hidden ones, and pipes and devices are left out. Raises UsageError if a path is no file or folder, or a file of an
    unknown kind.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        try:
            kind = path.stat().st_mode
        except OSError as error:
            raise _unreadable(path, error) from None
        if stat.S_ISDIR(kind):
            found |= dict.fromkeys(_files_in(path))
        elif not stat.S_ISREG(kind) or _ending(path) not in _ENDINGS:
            raise UsageError(f"--corpus {display_path(path)}: not a document of a known kind; {_READABLE}")
        else:
            found[path] = None
    if not found:
        raise UsageError(f"--corpus {' '.join(map(one_line, paths))}: no documents there; {_READABLE}")
    return list(found)


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"--corpus {display_path(path)}: cannot be read ({error.strerror}); {_READABLE}")


def _files_in(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error)

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(parent, name) for name in sorted(files)):
            is_special = path.exists() and not path.is_file()  # reading a pipe could wait for ever
            if not path.name.startswith(".") and _ending(path) in _ENDINGS and not is_special:
                yield path


def _ending(path: Path) -> str:
    """The ending that says what a file is; of a compressed table that before .gz."""
    ending = path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    return inner if ending == ".gz" and inner in _TABLES else ending


def content_sha256(file: Path) -> str:
    """The hash of the content; empty if the file cannot be read."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return ""


def read_documents(file: Path, field: str | None, note: Callable[[Path, str], None]) -> Iterator[Document]:
    """The documents of a file. What cannot be read, or has no text, is left out; `note` gets the file and a line about
    it.

    `field`: the field of a table with the text, if the user named it. Raises UsageError if a table has several fields
    with text and it is not known which one is meant.
    """
    ending, name = _ending(file), display_path(file)
    try:
        if ending in _TABLES:
            yield from _rows(file, field, note)
            return
        if file.stat().st_size > _LARGEST:
            raise ValueError(
                f"larger than {_LARGEST >> 20} MiB; divide it into files, or into rows of a .jsonl file"
            )
        text = _text(file.read_bytes(), ending)
    except (OSError, ValueError) as error:
        why = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else one_line(str(error))
        note(file, f"{name}: left out: {why}")
        return
    if text.strip():
        yield Document(file, None, text, ending != ".txt")
    else:
        scanned = " (scanned pages need text recognition, such as ocrmypdf)" if ending == ".pdf" else ""
        note(file, f"{name}: left out: no text{scanned}")


def _text(content: bytes, ending: str) -> str:
    """The text of one document. ValueError, in a few words, if it has none that can be read."""
    if ending in (".pdf", ".docx"):
        return cleaned(_converted(content, ending))
    if b"\0" in content[:4096]:
        raise ValueError("a binary file or UTF-16, not UTF-8")
    text = decoded(content)
    return cleaned(_converted(text.encode(), ending) if ending in _CONVERTED else text)


def _converted(content: bytes, ending: str) -> str:
    """The Markdown of a document in another format."""
    try:
        import markitdown
        from markitdown import converters
    except ImportError:
        raise UsageError(
            f"--corpus: a {ending} file needs a converter; install it with `pip install 'datacreate[documents]'`, or "
            "give other files"
        ) from None

    # Its reports about damaged fonts are for its developers.
    logging.getLogger("pdfminer").setLevel(logging.CRITICAL)
    converter: Any = getattr(converters, _CONVERTED[ending])()
    try:
        found = converter.convert(BytesIO(content), markitdown.StreamInfo(extension=ending))
    except Exception as error:  # noqa: BLE001 (the libraries have no common error for damaged files)
        why = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise ValueError(f"damaged, or no {ending} file ({why})") from None
    return str(found.markdown)


def cleaned(text: str) -> str:
    """The text with "\\n" as the only line end, and a space for each control character."""
    text = _LINE_ENDS.sub("\n", text) if "\r" in text else text
    return _CONTROLS.sub(" ", text)


def _rows(file: Path, field: str | None, note: Callable[[Path, str], None]) -> Iterator[Document]:
    name, without = field, 0
    try:
        for row in RowFile(file).read():
            if name is None and not row.error:
                name = _text_field(row.values, file)
            text = row.values.get(name) if name else None
            if isinstance(text, str) and text.strip():
                yield Document(file, row.number, cleaned(text), False)
            else:
                without += 1
    except UsageError as error:
        if name is None and "--corpus-field" in str(error):
            raise
        note(file, f"{one_line(str(error))}; left out from there on")
    if without:
        where = f" in the field {name}" if name else ""
        note(file, f"{display_path(file)}: left out: {without} rows without a text{where}")


def _text_field(values: dict[str, Json], file: Path) -> str | None:
    """The field with the text: `text`, or the only one with a string; None if there is none."""
    names = [name for name, value in values.items() if isinstance(value, str)]
    if "text" in values or len(names) < 2:
        return "text" if "text" in values else next(iter(names), None)
    known = ", ".join(map(one_line, names))
    raise UsageError(
        f"{display_path(file)}: which field has the text? name it with --corpus-field (fields: {known})"
    )
