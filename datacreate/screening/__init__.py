"""Screening: the quality filters over rows that are there already; a language model only if one verifies.

screening/
  filters.py     from settings to the filters, in order
  verifier.py    a model as the last filter: it is asked for each row's answer
  rows.py        the rows of a run or of a JSONL file, each with its line; invalid ones named
  writing.py     the kept and the rejected rows, written whole or not at all
  screen.py      one pass over the rows, the balance of labels, the figures
  filtering.py   all of it: what `datacreate filter` does
"""

from __future__ import annotations

from datacreate.screening.filtering import Filtered, filter_rows
from datacreate.screening.filters import embedder_of, filters_of, prepare
from datacreate.screening.rows import Flawed, Row, Rows, read_rows
from datacreate.screening.screen import Screened, screen

__all__ = [
    "Filtered",
    "Flawed",
    "Row",
    "Rows",
    "Screened",
    "embedder_of",
    "filter_rows",
    "filters_of",
    "prepare",
    "read_rows",
    "screen",
]
