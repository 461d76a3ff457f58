"""Rows made for the tests of shortcuts, clean ones and ones with a planted tell."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from datacreate.formats.example import Example
from datacreate.formats.task_format import TaskFormat, load_format, specialize

WORDS = (
    "river lamp wooden quiet north seven copper garden market early stone winter paper yellow engine "
    "window bridge letter salt cloud harbour narrow silver basket road candle meadow iron kettle bell"
).split()

Row = dict[str, Any]


def format_of(name: str, row: Mapping[str, Any]) -> TaskFormat:
    return specialize(load_format(name), Example(row))


def sentence(rng: random.Random, fewest: int = 6, most: int = 12) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(fewest, most)))


def choice_rows(number: int, seed: int, options: int = 5) -> list[Row]:
    """Questions whose right option is drawn after everything else is written."""
    rng = random.Random(seed)
    rows = []
    for at in range(number):
        texts: list[str] = []
        while len(texts) < options:
            if (text := sentence(rng, 1, 3)) not in texts:
                texts.append(text)
        rows.append(
            {"question": f"{sentence(rng)} {at}?", "context": None, "options": texts, "label": rng.choice(texts)}
        )
    return rows


def statement_rows(number: int, seed: int, passage: bool = False) -> list[Row]:
    """Statements (or questions with a passage) whose label is drawn after everything else is written."""
    rng = random.Random(seed)
    return [
        {
            "question": f"{sentence(rng)} {at}",
            "context": sentence(rng, 20, 40) if passage else None,
            "options": ["True", "False"],
            "label": rng.random() < 0.5,
        }
        for at in range(number)
    ]


CHOICE = format_of("multiple_choice", choice_rows(1, 0)[0])
STATEMENT = format_of("yes_no_closed_book", statement_rows(1, 0)[0])
PASSAGE = format_of("yes_no_open_book", statement_rows(1, 0, passage=True)[0])
