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
from importlib import import_module
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from datacreate.errors import UsageError
from datacreate.formats.example import one_line
from datacreate.formats.row_file import RawRow, RowFile, decoded

_TABLES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"}
_CONVERTED = {".html": "HtmlConverter", ".htm": "HtmlConverter", ".pdf": "PdfConverter", ".docx": "DocxConverter"}
"""Ending -> the class of markitdown that makes Markdown of such a file."""

_ENDINGS = {".txt", ".md", ".markdown", *_CONVERTED, *_TABLES}
_READABLE = "give .txt, .md, .html, .pdf, .docx, .jsonl, .csv, .parquet, or a folder of them"
_MAX_BYTES = 100 << 20  # maximum size of a file that is one document, since it is read as a whole
_BINARY_PROBE_BYTES = 4096  # a file is binary if there is a zero byte among this many first ones
_FIRST_ROWS = 1000  # of a table, which show the field with the text
_MAX_REASON_CHARS = 100  # of a converter's message
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
    """The files with documents at these paths, each once; those of a folder in the order of their names.

    Folders are searched with their subfolders, but links to folders are not followed. Files of unknown kinds in a
    folder, hidden files, run directories, pipes and devices are left out. Raises UsageError if a path does not exist,
    or is a file of an unknown kind.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        try:
            mode = path.stat().st_mode
        except OSError as error:
            _raise_unreadable(error)
        if stat.S_ISDIR(mode):
            files += _files_in(path)
        elif stat.S_ISREG(mode) and _ending(path) in _ENDINGS:
            files.append(path)
        else:
            raise UsageError(f"--corpus {display_path(path)}: not a document of a known kind; {_READABLE}")
    if not files:
        raise UsageError(f"--corpus {' '.join(map(one_line, paths))}: no documents there; {_READABLE}")
    return list(dict.fromkeys(files))


def _raise_unreadable(error: OSError) -> NoReturn:
    path = display_path(Path(error.filename))
    raise UsageError(f"--corpus {path}: cannot be read ({error.strerror}); {_READABLE}") from None


def _files_in(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_raise_unreadable):
        config = Path(parent, "config.json")
        if config.is_file() and os.access(config, os.R_OK) and b'"datacreate"' in config.read_bytes():
            folders.clear()  # the directory of a run, maybe of this one
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(parent, name) for name in sorted(files)):
            is_special = path.exists() and not path.is_file()  # reading a pipe could wait for ever
            if not path.name.startswith(".") and _ending(path) in _ENDINGS and not is_special:
                yield path


def _ending(path: Path) -> str:
    """The ending that says what a file is; of a compressed table (`rows.csv.gz`) the one before `.gz`."""
    ending = path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    return inner if ending == ".gz" and inner in _TABLES else ending


def content_sha256(file: Path) -> str:
    """The SHA-256 of the content in hex digits; empty if the file cannot be read."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return ""


def read_documents(file: Path, field: str | None, note: Callable[[str], None]) -> Iterator[Document]:
    """Read the documents of a file: one, or one for each row of a table.

    A document that cannot be read, or has no text, is left out; `note` gets a line about it. `field` is
    the field of a table with the text, if the user named it. Raises UsageError if a table has several fields with text
    and the user named none, and if the converter of a kind of file is not installed.
    """
    ending, name = _ending(file), display_path(file)
    try:
        if ending in _TABLES:
            yield from _rows(file, field, note)
            return
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES >> 20} MiB; divide it into files, or into rows of a .jsonl file")
        content = file.read_bytes()
        if ending not in (".pdf", ".docx"):
            if b"\0" in content[:_BINARY_PROBE_BYTES]:
                raise ValueError("a binary file or UTF-16, not UTF-8")
            content = decoded(content).encode()
        text = cleaned(_converted(content, ending) if ending in _CONVERTED else content.decode())
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else one_line(str(error))
        note(f"{name}: left out: {reason}")
        return
    if text.strip():
        yield Document(file, None, text, is_markdown=ending != ".txt")
    else:
        scanned = " (scanned pages need text recognition, such as ocrmypdf)" if ending == ".pdf" else ""
        note(f"{name}: left out: no text{scanned}")


def _converted(content: bytes, ending: str) -> str:
    """The Markdown of a document in another format. Raises ValueError with a short reason if it is damaged."""
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
        if _CONVERTED[ending] == "HtmlConverter":
            page = import_module("bs4").BeautifulSoup(content.decode(), "html.parser")  # which markitdown depends on
            for part in page(["nav", "footer"]):
                part.extract()  # the menus of a site are not its text
            content = page.encode()
        converted = converter.convert(BytesIO(content), markitdown.StreamInfo(extension=ending))
    except Exception as error:  # noqa: BLE001 (the libraries have no common error for damaged files)
        reason = str(error).splitlines()[0][:_MAX_REASON_CHARS] if str(error) else type(error).__name__
        raise ValueError(f"damaged, or not a {ending} file ({reason})") from None
    return str(converted.markdown)


def cleaned(text: str) -> str:
    """The text with "\\n" as the only line end, and a space for each control character."""
    text = _LINE_ENDS.sub("\n", text) if "\r" in text else text
    return _CONTROLS.sub(" ", text)


def _rows(file: Path, field: str | None, note: Callable[[str], None]) -> Iterator[Document]:
    """The rows of a table with a text in `field`; without `field`, the first rows show which one has the text."""
    rows_without_text, field = 0, field or _text_field(file)
    for number, row in enumerate(_readable_rows(file, note), 1):  # `row.number` can be a line with several rows
        text = row.values.get(field) if field else None
        if isinstance(text, str) and text.strip():
            yield Document(file, number, cleaned(text), is_markdown=False)
        else:
            rows_without_text += 1
    if rows_without_text:
        where = f" in the field {field}" if field else ""
        note(f"{display_path(file)}: left out: {rows_without_text} rows without a text{where}")


def _readable_rows(file: Path, note: Callable[[str], None]) -> Iterator[RawRow]:
    """The rows of a table, up to the place where it is damaged."""
    try:
        yield from RowFile(file).read()
    except UsageError as error:
        note(f"{one_line(str(error))}; left out from there on")


def _text_field(file: Path) -> str | None:
    """The field with the text: `text`, or the only one with a string in the first rows; None if there is none."""
    rows = islice(_readable_rows(file, lambda _: None), _FIRST_ROWS)
    texts = (name for row in rows for name, value in row.values.items() if name == "text" or isinstance(value, str))
    names = list(dict.fromkeys(texts))
    if "text" in names or len(names) < 2:
        return "text" if "text" in names else next(iter(names), None)
    fields = ", ".join(map(one_line, names))
    raise UsageError(f"{display_path(file)}: which field has the text? name it with --corpus-field (fields: {fields})")
