"""How far created questions are from the formatting example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean, median
from typing import Protocol

from datacreate.checkpoints import resolve
from datacreate.errors import CheckpointError
from datacreate.finetuning.hardware import quiet
from datacreate.reporting.tables import Distance
from datacreate.selection.similarity import SentenceSimilarity, Similarity
from datacreate.tasks.normal import normalised

MOST_COMPARED = 500
"""Examples of a run that are compared; of more, so many are taken evenly."""

BINS = 20

USUAL_ENCODERS = ("all-minilm-l6-v2", "all-mpnet-base-v2")
"""The first that is here measures, unless the user names another: the small one says the same, sooner."""


class Measure(Protocol):
    """A distance and its name."""

    name: str

    def of(self, text: str, others: Sequence[str]) -> list[float]:
        """The distance of `text` to each of `others`: 0 is the same, larger is further."""


class CosineDistance:
    """One less the cosine of sentence embeddings, in [0, 2]."""

    def __init__(self, encoder: str, similarity: Similarity) -> None:
        self.name = f"cosine distance, {encoder}"
        self._similarity = similarity

    def of(self, text: str, others: Sequence[str]) -> list[float]:
        return [max(0.0, 1 - cosine) for cosine in self._similarity.to_one(text, others)]


class _Quietly(SentenceSimilarity):
    """Without the bars of the libraries beneath."""

    def to_one(self, text: str, others: Sequence[str]) -> list[float]:
        with quiet():
            return super().to_one(text, others)


class WordDistance:
    """One less the share of words that two texts have in common (Jaccard, 1901), in [0, 1]."""

    name = "word overlap (1 - Jaccard)"

    def of(self, text: str, others: Sequence[str]) -> list[float]:
        words = _words(text)
        return [1 - len(words & its) / max(1, len(words | its)) for its in map(_words, others)]


def _words(text: str) -> set[str]:
    return set(normalised(text).split())


def find_measure(encoder: str | None) -> Measure:
    """The cosine by an encoder, `none` for word overlap; by default the best that is here.

    CheckpointError if the encoder that is named is not here.
    """
    if encoder == "none":
        return WordDistance()
    for name in [encoder] if encoder else USUAL_ENCODERS:
        try:
            checkpoint = resolve(name, "encoder")
        except CheckpointError:
            if encoder:
                raise
        else:
            return CosineDistance(checkpoint.name, _Quietly(checkpoint.path))
    return WordDistance()


def distance(measure: Measure, root: str, texts: Sequence[str], depths: Sequence[int]) -> Distance | None:
    """How far `texts` are from `root`; `depths`, as long, says how deep below it each is. None of none."""
    places = evenly(len(texts), MOST_COMPARED)
    if not places:
        return None
    found = measure.of(root, [texts[place] for place in places])
    by_depth: defaultdict[int, list[float]] = defaultdict(list)
    for place, one in zip(places, found, strict=True):
        by_depth[depths[place]].append(one)
    top = max(1.0, *found)
    bins = [0] * BINS
    for one in found:
        bins[min(BINS - 1, int(one / top * BINS))] += 1
    return Distance(
        measure=measure.name,
        compared=len(found),
        mean=mean(found),
        median=median(found),
        edges=tuple(top * edge / BINS for edge in range(BINS + 1)),
        bins=tuple(bins),
        by_depth={depth: mean(values) for depth, values in sorted(by_depth.items())},
    )


def evenly(total: int, most: int) -> list[int]:
    """At most `most` of the places below `total`, evenly spread and in order."""
    number = min(total, most)
    return [place * total // number for place in range(number)]
