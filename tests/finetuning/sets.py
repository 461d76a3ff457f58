"""Small data sets that can be learned: the right answer can be eaten."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datacreate.finetuning.training_rows import Source, SourceRow
from datacreate.formats.task_format import load_format
from datacreate.verification import Probabilities

FOODS = "apple bread cheese grape honey lemon mango onion".split()
TOOLS = "anvil brush chisel drill file hammer ladder saw".split()
ASKED = "which one of these would you eat now in the garden kitchen street today please".split()

Row = dict[str, Any]


def words() -> list[str]:
    """Every word that these sets are made of."""
    numbers = [str(number) for number in range(1000)]
    return [*FOODS, *TOOLS, *ASKED, "there", "is", "a", "on", "the", "table", "True", "False", *numbers]


def choices(count: int, options: int = 5, seed: int = 0) -> list[Row]:
    """Questions with options, one of which can be eaten. No question appears twice."""
    rng = random.Random(f"choices {options} {seed}")
    rows = []
    for place in range(count):
        shown = rng.sample(TOOLS, options)
        label = rng.choice(FOODS)
        shown[rng.randrange(options)] = label
        question = f"{place} which one would you eat {' '.join(rng.sample(ASKED, rng.randint(1, 8)))}"
        rows.append({"question": question, "context": None, "options": shown, "label": label})
    return rows


def claims(count: int, seed: int = 0, passage: bool = False) -> list[Row]:
    """Claims, true if something in the text can be eaten; with `passage` that is where it is named."""
    rng = random.Random(f"claims {passage} {seed}")
    rows = []
    for place in range(count):
        label = place % 2 == 0
        thing = rng.choice(FOODS if label else TOOLS)
        said = f"on the table there is a {thing} {' '.join(rng.sample(ASKED, rng.randint(1, 8)))}"
        question = f"{place} would you eat one" if passage else f"{place} {said}"
        context = said if passage else None
        rows.append({"question": question, "context": context, "options": ["True", "False"], "label": label})
    return rows


def source_of(rows: Sequence[Row], format_name: str, probabilities: Sequence[Probabilities] | None = None) -> Source:
    """Rows of a shipped format, each a family of its own."""
    soft_labels = probabilities or [None] * len(rows)
    columns = enumerate(zip(rows, soft_labels, strict=True))
    return Source("x", "tree", load_format(format_name), [SourceRow(row, str(n), soft) for n, (row, soft) in columns])


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """A JSONL file of the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def one_hot(chosen: Sequence[int | None]) -> list[list[float] | None]:
    """Probabilities of a model that is sure of these answers; None for a row that it cannot answer."""
    return [None if one is None else [float(place == one) for place in range(5)] for one in chosen]
