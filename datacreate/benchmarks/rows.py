"""One row of a benchmark: harmless text, the reference's four columns, one spelling of the label."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from datacreate.benchmarks.registry import Benchmark
from datacreate.formats.example import Json

COLUMNS = ("question", "context", "options", "label")
TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
YES_NO_OPTIONS = ["True", "False"]

_LINE_BREAKS = re.compile("\r\n|[\r\x0b\x0c\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Row(NamedTuple):
    """A row, normalised; `label` is a boolean in yes/no sets, otherwise the text of an option."""

    question: str
    context: str | None
    options: tuple[str, ...]
    label: str | bool

    @property
    def repeats_options(self) -> bool:
        """Whether two of its options are the same text."""
        return len(set(self.options)) < len(self.options)

    @property
    def position(self) -> int | None:
        """The place of the right option from 0, the first if it is there twice; None if it is nowhere."""
        answer = str(self.label) if isinstance(self.label, bool) else self.label
        return self.options.index(answer) if answer in self.options else None

    def values(self) -> dict[str, Json]:
        """As `read_split` gives it."""
        return {**self._asdict(), "options": list(self.options)}

    def line(self) -> str:
        """As it stands in a split's file."""
        return json.dumps(self.values(), ensure_ascii=False) + "\n"


def clean(text: str) -> str:
    """The text in NFC, its line breaks all `\\n`, without control characters and half characters.

    A C1 control is taken for the character of Windows-1252 that it is in practice (0x92: an apostrophe).
    """
    text = _LINE_BREAKS.sub("\n", text)
    return unicodedata.normalize("NFC", _CONTROLS.sub(_harmless, text))


def _harmless(found: re.Match[str]) -> str:
    character = found.group()
    if "\x80" <= character <= "\x9f":
        meant = character.encode("latin-1").decode("cp1252", "ignore")
        return meant or " "
    return "\N{REPLACEMENT CHARACTER}" if character >= "\ud800" else " "


def row_of(values: Json, benchmark: Benchmark) -> Row:
    """A row from a line's object; ValueError, in words, if its columns, options or label are wrong.

    Repeated options and an answer that is not among them are no errors here: such rows exist in
    published test sets, and none is dropped.
    """
    if not isinstance(values, dict):
        raise ValueError("not an object of question, context, options and label")
    if missing := [name for name in COLUMNS if name not in values]:
        raise ValueError(f"no column {missing[0]!r}")
    if unknown := [name for name in values if name not in COLUMNS]:
        raise ValueError(f"unknown column {unknown[0]!r}; the columns are {', '.join(COLUMNS)}")
    question, context = values["question"], values["context"]
    if not isinstance(question, str) or not question.strip():
        raise ValueError("question is not a text")
    if benchmark.open_book and (not isinstance(context, str) or not context.strip()):
        raise ValueError("context is not a text, and this set is open book")
    if context is not None and not isinstance(context, str):
        raise ValueError("context is neither a text nor null")
    if benchmark.category == "yesno_close" and context is not None:
        raise ValueError("context is not null, and this set is closed book")
    told = context if context is None else clean(context)
    return _labelled(clean(question), told, values["options"], values["label"], benchmark)


def _labelled(question: str, context: str | None, options: Json, label: Json, benchmark: Benchmark) -> Row:
    if benchmark.labels:
        _refuse_other_options(options)
        truth = label if isinstance(label, bool) else TRUTHS.get(str(label).strip().lower())
        if truth is None:
            raise ValueError(f"label {str(label)[:40]!r} is neither True nor False")
        return Row(question, context, tuple(YES_NO_OPTIONS), truth)
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError("options is not a list of texts")
    if len(options) != benchmark.options:
        raise ValueError(f"{len(options)} options, and this set has {benchmark.options}")
    if not isinstance(label, str):
        raise ValueError(f"label {str(label)[:40]} is not the text of an option")
    texts = tuple(map(clean, options))
    return Row(question, context, texts, _as_an_option(clean(label), texts))


def _refuse_other_options(options: Json) -> None:
    if options is None:
        return
    words = options if isinstance(options, list) else []
    if {TRUTHS.get(str(word).strip().lower()) for word in words} != {True, False}:
        raise ValueError("options are not True and False")


def _as_an_option(label: str, options: Iterable[str]) -> str:
    """The option that the label means, where only spaces and case tell them apart; else the label."""
    if label in options:
        return label
    meant = [option for option in options if option.split() == label.split()]
    meant = meant or [option for option in options if option.casefold().split() == label.casefold().split()]
    return meant[0] if len(meant) == 1 else label
