"""The Hub's splits become ours, apart from the rows of ours that are here already.

Where the reference made several of its splits from one of the Hub's (PIQA's test set is a part
of the Hub's train split), its files say which rows are which: those of the splits that are imported are
taken out, and what is left is the rest. Without them nobody can know, and a seed deals the rows
into splits of the paper's sizes, which is said.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from datacreate.benchmarks.reference import Brought
from datacreate.benchmarks.registry import Benchmark, HubSource, Split
from datacreate.benchmarks.rows import Row
from datacreate.benchmarks.store import sha256_of
from datacreate.formats.text_normalization import normalize_text

_Key = tuple[str, ...]


def deal(
    source: str,
    pools: Mapping[str, list[Row]],
    here: Mapping[Split, list[Row]],
    benchmark: Benchmark,
    hub: HubSource,
    seed: int,
) -> Brought:
    """Our splits from the Hub's; those that are `here` are left out, and their rows out of the others."""
    brought = Brought(source, {})
    for name, pool in pools.items():
        wanted = [split for split in hub.splits[name] if split not in here]
        others = [split for split in hub.splits[name] if split in here]
        if not wanted:
            continue
        rest, notes = list(pool), []
        for other in others:
            rest, said = _taken_out(rest, here[other], other)
            notes.append(said)
        if len(wanted) > 1:
            words = f"{', '.join(wanted[:-1])} and {wanted[-1]}"
            notes.append(
                f"which rows of the Hub's {name} split are {words} only the reference's files say: "
                f"dealt by seed {seed} into the paper's sizes"
            )
        dealt = _dealt(rest, wanted, benchmark, seed)
        digests = {split: sha256_of(rows) for split, rows in dealt.items()}
        digests |= {other: sha256_of(here[other]) for other in others}
        for split, rows in dealt.items():
            brought.rows[split] = rows
            brought.apart_from[split] = {other: sha for other, sha in digests.items() if other != split}
            if notes:
                brought.notes[split] = "; ".join(notes)
    return brought


def _taken_out(pool: Sequence[Row], other: Sequence[Row], name: str) -> tuple[list[Row], str]:
    """The pool without the rows of another split, each as often as it is there.

    Rows of the other split that the pool does not hold word for word take out what asks their question.
    """
    left = Counter(map(_key, other))
    rest = []
    for row in pool:
        key = _key(row)
        if left[key]:
            left[key] -= 1
        else:
            rest.append(row)
    found = len(pool) - len(rest)
    questions = {key[0] for key, number in left.items() if number}
    if questions:
        rest = [row for row in rest if normalize_text(row.question) not in questions]
    said = f"without the {found} rows of {name}"
    if questions:
        more = len(pool) - found - len(rest)
        said += f" (of {len(other)}; {more} more that ask the questions of those not found)"
    return rest, said


def _key(row: Row) -> _Key:
    return (normalize_text(row.question), *sorted(map(normalize_text, row.options)))


def _dealt(
    rows: Sequence[Row], wanted: Sequence[Split], benchmark: Benchmark, seed: int
) -> dict[Split, list[Row]]:
    """The rows dealt at random into the splits, in proportion to the paper's sizes, each in its old order."""
    if len(wanted) == 1:
        return {wanted[0]: list(rows)}
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    sizes = [benchmark.rows[split] for split in wanted]
    dealt, begin = {}, 0
    for place, split in enumerate(wanted):
        end = len(rows) * sum(sizes[: place + 1]) // sum(sizes)
        dealt[split] = [rows[i] for i in sorted(order[begin:end])]
        begin = end
    return dealt
