"""The selection strategies, as pure functions in one registry.

A strategy sees a parent and the children accepted from it, and names which of the children
become the next parents. How parents queue up is the queue's business: a `chain` asks one
parent at a time, a `tree` all of them, breadth first, a `cover` those that are farthest from what
was asked. The first five strategies are those of Lee et al. (EMNLP 2023), whose "contrastive" is
`diverse`, as in their code.
"""

# ruff: noqa: ARG001 (all strategies have one signature)

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from datacreate.errors import UsageError
from datacreate.selection.embeddings import Similarity

Grows = Literal["chain", "tree", "cover"]
"""How a strategy's parents queue up."""

Choose = Callable[[str, Sequence[str], random.Random, Similarity | None], Sequence[int]]
"""(parent's text, children's texts, rng, similarity) -> indices of the next parents, in order."""


@dataclass(frozen=True)
class Strategy:
    """A named way to choose parents."""

    name: str
    grows: Grows
    needs_similarity: bool
    choose: Choose


STRATEGIES: dict[str, Strategy] = {}


def strategy(*, grows: Grows = "chain", needs_similarity: bool = False) -> Callable[[Choose], Choose]:
    """Enter a function into the registry under its own name."""

    def enter(choose: Choose) -> Choose:
        name = choose.__name__.rstrip("_")
        STRATEGIES[name] = Strategy(name, grows, needs_similarity, choose)
        return choose

    return enter


def find_strategy(name: str) -> Strategy:
    """The strategy of this name; UsageError, naming all, if there is none."""
    if name not in STRATEGIES:
        raise UsageError(f"no strategy {name!r}; strategies are {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


@strategy()
def naive(
    parent: str, children: Sequence[str], rng: random.Random, similarity: Similarity | None
) -> Sequence[int]:
    """always the formatting example"""
    return ()


@strategy()
def random_(
    parent: str, children: Sequence[str], rng: random.Random, similarity: Similarity | None
) -> Sequence[int]:
    """one accepted child, at random"""
    return (rng.randrange(len(children)),)


@strategy(needs_similarity=True)
def diverse(
    parent: str, children: Sequence[str], rng: random.Random, similarity: Similarity | None
) -> Sequence[int]:
    """the child least similar to its parent"""
    scores = _scores(parent, children, similarity)
    return (scores.index(min(scores)),)


@strategy(needs_similarity=True)
def similar(
    parent: str, children: Sequence[str], rng: random.Random, similarity: Similarity | None
) -> Sequence[int]:
    """the child most similar to its parent"""
    scores = _scores(parent, children, similarity)
    return (scores.index(max(scores)),)


@strategy(grows="tree")
def tree(
    parent: str, children: Sequence[str], rng: random.Random, similarity: Similarity | None
) -> Sequence[int]:
    """every accepted child, breadth first"""
    return rng.sample(range(len(children)), len(children))


@strategy(grows="cover", needs_similarity=True)
def coverage(
    parent: str, children: Sequence[str], rng: random.Random, similarity: Similarity | None
) -> Sequence[int]:
    """those that cover best what is there, farthest first"""
    return range(len(children))


def _scores(parent: str, children: Sequence[str], similarity: Similarity | None) -> list[float]:
    if similarity is None:
        raise UsageError("this strategy compares texts; give it a sentence encoder with --encoder")
    return similarity.similarities(parent, children)
