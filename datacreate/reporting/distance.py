"""How far created questions are from the formatting example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean, median

from datacreate.checkpoints import resolve
from datacreate.errors import CheckpointError
from datacreate.metrics.text_similarity import Likeness, SentenceCosine, WordOverlap
from datacreate.reporting.tables import Distance
from datacreate.selection.embeddings import SentenceEmbedder

MOST_COMPARED = 500
"""Examples of a run that are compared; of more, so many are taken evenly."""

BINS = 20

USUAL_ENCODERS = ("all-minilm-l6-v2", "all-mpnet-base-v2")
"""The first that is here measures, unless the user names another: the small one says the same, sooner."""


def find_likeness(encoder: str | None) -> Likeness:
    """The cosine by an encoder, `none` for word overlap; by default the best that is here.

    CheckpointError if the encoder that is named is not here.
    """
    if encoder == "none":
        return WordOverlap()
    for name in [encoder] if encoder else USUAL_ENCODERS:
        try:
            checkpoint = resolve(name, "encoder")
        except CheckpointError:
            if encoder:
                raise
        else:
            return SentenceCosine(checkpoint.name, SentenceEmbedder(checkpoint.path))
    return WordOverlap()


def distance(likeness: Likeness, root: str, texts: Sequence[str], depths: Sequence[int]) -> Distance | None:
    """How far `texts` are from `root`; `depths`, as long, says how deep below it each is. None of none."""
    places = evenly(len(texts), MOST_COMPARED)
    if not places:
        return None
    matrix = likeness.matrix([root, *(texts[place] for place in places)])
    found = [max(0.0, 1 - float(alike)) for alike in matrix[0, 1:]]
    by_depth: defaultdict[int, list[float]] = defaultdict(list)
    for place, one in zip(places, found, strict=True):
        by_depth[depths[place]].append(one)
    top = max(1.0, *found)
    bins = [0] * BINS
    for one in found:
        bins[min(BINS - 1, int(one / top * BINS))] += 1
    return Distance(
        measure=likeness.name,
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
