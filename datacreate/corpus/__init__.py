"""Documents of the user are cut into passages: the texts that examples are written about.

`documents.py` reads files, `passages.py` cuts, stores and assigns their passages.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from datacreate.messages import EMPTY_PATH
from datacreate.settings import FrozenModel, Settings, setting

if TYPE_CHECKING:
    from datacreate.formats.task_format import TaskFormat

DEFAULT_PASSAGE_TOKENS = 160
"""About 120 English words, like a context of SQuAD: enough for several questions, and several fit into a prompt."""


class CorpusOptions(Settings):
    """The documents that examples are written about."""

    corpus: tuple[str, ...] = setting(
        "Write the examples about passages of these documents: a file or a folder (.txt, .md, .html, .pdf, "
        ".docx, .json, .jsonl, .csv, .tsv, .parquet). A format with a context gets the passage as its context. Repeat "
        "the option.",
        "input",
        default=(),
        metavar="PATH",
    )
    corpus_field: str | None = setting(
        "Field with the text in files of --corpus that have rows, such as .jsonl and .csv.",
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
            raise ValueError(f"--corpus: {EMPTY_PATH}")
        if not self.corpus and (flag := self.first_changed_flag(("corpus_field", "passage_tokens"))):
            raise ValueError(f"{flag} is for documents; also give --corpus PATH")
        return self


class CorpusSpec(FrozenModel):
    """The passages of a run, as part of its identity."""

    sha256: str  # of passages.jsonl
    passages: int
    documents: int  # that have a passage; each row of a table is one
    passage_tokens: int
    field: str | None


def about_passages(task_format: TaskFormat) -> TaskFormat:
    """The format for examples about passages: its context, if that is a text, is not generated but given."""
    from datacreate.formats.schema_utils import schema_at  # here, so that `--help` is fast

    context = task_format.passage_field
    is_text = context is not None and schema_at(task_format.schema, context).get("type") == "string"
    return replace(task_format, context_is_given=is_text)
