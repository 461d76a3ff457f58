"""Measures how different the texts of a set are from each other and from the formatting example.

All metrics but mean words depend on the number of texts, so sets are compared at the same number:
`measure_diversity(texts, count=n)` draws n of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datacreate.formats.text_normalization import words

MAX_TEXTS = 1_000
MAX_PAIRED = 500  # texts for distances and the Vendi score
MAX_BLEU = 100  # texts for self-BLEU, whose time is quadratic in their number

Matrix = npt.NDArray[np.float64]


def word_overlap(texts: Sequence[str]) -> Matrix:
    """Jaccard similarity of the words of each pair of texts, (n, n); 1 for two texts without words.

    At least one of the texts needs words.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counts = CountVectorizer(analyzer=words, binary=True, dtype=np.float64).fit_transform(texts)
    shared = (counts @ counts.T).toarray()
    union = shared.diagonal()[:, None] + shared.diagonal() - shared
    overlap: Matrix = np.where(union > 0, shared / np.maximum(union, 1), 1.0)
    return overlap


@dataclass(frozen=True)
class Diversity:
    """The metrics of one set; None if there are too few texts."""

    texts: int  # drawn
    mean_words: float
    distinct_1: float  # share of distinct words in [0, 1] (Li et al., 2016); then word pairs and triples
    distinct_2: float | None
    distinct_3: float | None
    self_bleu: float | None  # in [0, 1]; 1 if all texts are the same
    paired: int  # texts behind the metrics below
    between: float | None  # mean distance of two texts: 1 - `word_overlap`
    from_example: float | None  # mean distance to the nearest formatting example; None without one
    vendi: float | None  # see `vendi_score`


def measure_diversity(texts: Sequence[str], examples: Sequence[str] = (), count: int = MAX_TEXTS) -> Diversity | None:
    """The metrics of `count` texts drawn from `texts`, at most `MAX_TEXTS`; None if they have no words."""
    drawn = random.Random(0).sample(texts, min(MAX_TEXTS, len(texts), count))
    words_of_texts = [words(text) for text in drawn]
    total = sum(map(len, words_of_texts))
    if not total:
        return None
    paired = drawn[:MAX_PAIRED]
    kernel = word_overlap([*paired, *examples])
    among_texts, to_examples = kernel[: len(paired), : len(paired)], kernel[: len(paired), len(paired) :]
    return Diversity(
        texts=len(drawn),
        mean_words=total / len(drawn),
        distinct_1=distinct(words_of_texts, 1) or 0.0,
        distinct_2=distinct(words_of_texts, 2),
        distinct_3=distinct(words_of_texts, 3),
        self_bleu=self_bleu(words_of_texts),
        paired=len(paired),
        between=mean_distance(among_texts),
        from_example=float((1 - to_examples.max(axis=1)).clip(0).mean()) if examples else None,
        vendi=vendi_score(among_texts),
    )


def distinct(texts: Sequence[Sequence[str]], order: int) -> float | None:
    """Distinct n-grams of `order` words as a share of all n-grams; None if all texts have fewer words."""
    ngrams = [tuple(text[start : start + order]) for text in texts for start in range(len(text) - order + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def mean_distance(kernel: Matrix) -> float | None:
    """The mean of 1 - similarity over pairs of different texts; None for a single text."""
    size = len(kernel)
    if size < 2:
        return None
    return float(max(0.0, 1 - (kernel.sum() - np.trace(kernel)) / (size * (size - 1))))


def vendi_score(kernel: Matrix) -> float:
    """The effective number of texts without anything in common, from 1 to n (Friedman & Dieng, 2023).

    exp of the entropy of the eigenvalues of K / n, for a kernel K of shape (n, n) with ones on its diagonal.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # several threads are far slower while other processes use the cores
        values = np.linalg.eigvalsh(kernel / len(kernel))
    positive = values[values > 1e-12]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """Mean BLEU-4 of each text with all others as references (Zhu et al., 2018), in [0, 1]; a text is a list of words.

    Uses the first `MAX_BLEU` texts. 1 if all texts are the same; None for fewer than two.
    """
    from sacrebleu.metrics.bleu import BLEU

    if len(texts) < 2:
        return None
    bleu = BLEU(tokenize="none", effective_order=True)
    lines = [" ".join(text) for text in texts[:MAX_BLEU]]
    scores = [
        float(bleu.sentence_score(line, lines[:index] + lines[index + 1 :]).score) / 100
        for index, line in enumerate(lines)
    ]
    return sum(scores) / len(scores)
