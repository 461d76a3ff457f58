"""Documents of the user, cut into passages: the texts that examples are written about.

`documents.py` reads files, `passages.py` cuts, stores and deals their passages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from datacreate.settings import FrozenModel, Settings, setting

if TYPE_CHECKING:
    from datacreate.formats.task_format import TaskFormat

DEFAULT_PASSAGE_TOKENS = 160
"""About 120 English words, like a context of SQuAD: enough for several questions, and several fit into a prompt."""


MAX_SHOWN = 20
"""Files in the dataset card."""


class CorpusOptions(Settings):
    """The documents that examples are written about."""

    corpus: tuple[str, ...] = setting(
        "Write the examples about passages of these documents: a file or a folder (.txt, .md, .html, .pdf, .docx, "
        ".jsonl, .csv, .parquet). A format with a context gets the passage as its context. Repeat the option.",
        "input",
        default=(),
        metavar="PATH",
    )
    corpus_field: str | None = setting(
        "Field with the text in .jsonl, .csv and .parquet files of --corpus.",
        "input",
        metavar="FIELD",
        shown_default="text, or the only field with text",
    )
    passage_tokens: int | None = setting(
        "Maximum length of a passage of --corpus in tokens, at about 4 bytes of text each.",
        "input",
        ge=16,
        le=4096,
        shown_default=str(DEFAULT_PASSAGE_TOKENS),
    )

    @model_validator(mode="after")
    def _check_corpus(self) -> Self:
        if not all(self.corpus):
            raise ValueError("--corpus: the path is empty; give a file or a folder")
        if not self.corpus and (flag := self.changed(("corpus_field", "passage_tokens"))):
            raise ValueError(f"{flag} is for documents; give --corpus PATH, too")
        return self


@dataclass
class CorpusUse:
    """How often documents and passages were used, in rows."""

    files: Counter[str] = field(default_factory=Counter)
    _documents: set[tuple[str, int | None]] = field(default_factory=set)
    _passages: set[str] = field(default_factory=set)

    def add(self, source: Mapping[str, Any], rows: int) -> None:
        """Count rows about a passage with this source."""
        self.files[source["file"]] += rows
        self._documents.add((source["file"], source.get("row")))
        self._passages.add(source["sha256"][:16])

    @property
    def shares(self) -> list[tuple[str, int, str]]:
        """The files with most rows, their rows, and the share of all."""
        total = self.files.total()
        return [(name, rows, f"{rows / total:.0%}") for name, rows in self.files.most_common(MAX_SHOWN)]

    @property
    def documents(self) -> int:
        """Documents with at least one row."""
        return len(self._documents)

    @property
    def passages(self) -> int:
        """Passages with at least one row."""
        return len(self._passages)


class CorpusRef(FrozenModel):
    """The passages of a run, as part of its identity."""

    sha256: str  # of passages.jsonl
    passages: int
    documents: int  # that have a passage; each row of a table is one
    passage_tokens: int
    field: str | None


def about_passages(format: TaskFormat) -> TaskFormat:
    """The format for examples about passages of documents: a context that is a text is given."""
    from datacreate.formats.schema_utils import schema_at  # here, so that `--help` is fast

    context = format.passage_field
    is_text = context is not None and schema_at(format.schema, context).get("type") == "string"
    return replace(format, context_is_given=is_text)
