"""How different the texts of a set are from each other, and from the formatting example.

All figures but mean words depend on how many texts there are, so that sets are compared at the same number:
`diversity(texts, number=n)` draws n of them by seed. Distinct-n and self-BLEU look at no more than 1,000,
what needs all pairs at no more than 500 of those.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datacreate.formats.text_normalization import words
from datacreate.metrics.self_bleu import grams, self_bleu
from datacreate.metrics.text_similarity import Likeness, Matrix

MOST_TEXTS = 1_000
MOST_PAIRED = 500


@dataclass(frozen=True)
class Diversity:
    """The figures of one set; None where there are too few texts."""

    texts: int
    """Drawn, and looked at."""

    mean_words: float
    distinct_1: float
    """Different words as a share of all words (Li et al., 2016), in [0, 1]; then pairs and triples."""

    distinct_2: float | None
    distinct_3: float | None
    self_bleu: float | None
    """In [0, 1]: 1 where all texts are alike."""

    measure: str
    """Of the distances, in words; `vendi` rests on the same."""

    paired: int
    """Texts behind the figures that follow."""

    between: float | None
    """Mean distance of two texts."""

    from_example: float | None
    """Mean distance to the formatting example; None without one."""

    vendi: float | None
    """As how many texts that have nothing in common the set counts, from 1 to `paired` (Friedman & Dieng,
    2023)."""

    vendi_share: float | None
    """The same as a share of `paired`."""


def diversity(
    texts: Sequence[str],
    likeness: Likeness,
    *,
    example: str | None = None,
    number: int | None = None,
    seed: int = 0,
) -> Diversity | None:
    """The figures of `number` of the texts (of all that may be looked at, by default); None of no words."""
    drawn = draw(texts, min(MOST_TEXTS, len(texts) if number is None else number), seed)
    split = [words(text) for text in drawn]
    total = sum(map(len, split))
    if not total:
        return None
    paired = drawn[:MOST_PAIRED]
    kernel = likeness.matrix(paired if example is None else [*paired, example])
    own = kernel[: len(paired), : len(paired)]
    vendi = vendi_score(own)
    return Diversity(
        texts=len(drawn),
        mean_words=total / len(drawn),
        distinct_1=distinct(split, 1) or 0.0,
        distinct_2=distinct(split, 2),
        distinct_3=distinct(split, 3),
        self_bleu=self_bleu(split),
        measure=likeness.name,
        paired=len(paired),
        between=_between(own),
        from_example=None if example is None else float((1 - kernel[-1, :-1]).clip(0).mean()),
        vendi=vendi,
        vendi_share=vendi / len(paired),
    )


def draw(texts: Sequence[str], number: int, seed: int) -> list[str]:
    """`number` of the texts in an order of their own, by seed; all where there are fewer."""
    return random.Random(seed).sample(texts, min(number, len(texts)))


def distinct(texts: Sequence[Sequence[str]], order: int) -> float | None:
    """Different runs of `order` words as a share of all; None where no text is so long."""
    found = [gram for text in texts for gram in grams(text, [order])]
    return len(set(found)) / len(found) if found else None


def vendi_score(kernel: Matrix) -> float:
    """exp of the entropy of the eigenvalues of K / n, for a kernel (n, n) with 1 on its diagonal."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    with threadpool_limits(1):  # beside other processes several threads take forty times as long
        values = np.linalg.eigvalsh(kernel / len(kernel))
    positive = values[values > 1e-12]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def _between(kernel: Matrix) -> float | None:
    """The mean distance of two different texts."""
    number = len(kernel)
    if number < 2:
        return None
    return float(max(0.0, 1 - (kernel.sum() - np.trace(kernel)) / (number * (number - 1))))
