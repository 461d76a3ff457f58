"""Self-BLEU (Zhu et al., 2018): how much each text is made of pieces of the others.

BLEU-4 of every text with all others as its references, averaged. The arithmetic of BLEU is sacrebleu's;
the counts of the references are kept once for all, since asking it text by text is quadratic.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence

_ORDER = 4

Gram = tuple[str, ...]


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """The mean over texts, given as words, in [0, 1]: 1 where all are alike. None of fewer than two."""
    if len(texts) < 2:
        return None
    from sacrebleu.metrics.bleu import BLEU

    counts = [Counter(grams(text)) for text in texts]
    most = _two_most(counts)
    lengths = sorted(map(len, texts))
    total = 0.0
    for text, own in zip(texts, counts, strict=True):
        correct, there = [0] * _ORDER, [0] * _ORDER
        for gram, number in own.items():
            first, second = most[gram]
            # Where this text has the most of all, the others' most is the second.
            correct[len(gram) - 1] += min(number, second if number == first else first)
            there[len(gram) - 1] += number
        nearest = _nearest(lengths, len(text))
        score = BLEU.compute_bleu(
            correct, there, len(text), nearest, smooth_method="exp", effective_order=True
        )
        total += float(score.score) / 100
    return total / len(texts)


def grams(text: Sequence[str], orders: Sequence[int] = range(1, _ORDER + 1)) -> list[Gram]:
    """All runs of so many words."""
    return [tuple(text[at : at + order]) for order in orders for at in range(len(text) - order + 1)]


def _two_most(counts: Sequence[Counter[Gram]]) -> dict[Gram, tuple[int, int]]:
    """How often the text with most of a gram has it, and the text after that."""
    most: dict[Gram, tuple[int, int]] = {}
    for count in counts:
        for gram, number in count.items():
            first, second = most.get(gram, (0, 0))
            most[gram] = (number, first) if number > first else (first, max(second, number))
    return most


def _nearest(lengths: Sequence[int], length: int) -> int:
    """The length closest to `length` among all but one that has it; of two as close, the shorter."""
    at = bisect.bisect_left(lengths, length)
    others = [*lengths[max(0, at - 1) : at], *lengths[at + 1 : at + 2]]
    return min(others, key=lambda other: (abs(other - length), other))
