"""The selection strategies: how the next prompt is chosen.

A strategy gets the parent (the example that the prompt showed) and its children that were not rejected, and returns
the children that become parents of later prompts. To add a strategy, write one function with `@strategy`. Its `queue`
decides the order of the parents: with `root` every prompt shows a formatting example; a `chain` uses one child of each
request; a `tree` uses all children, breadth first; `farthest_first` uses the one farthest from the parents used so far.
The first five strategies are those of Lee et al. (EMNLP 2023); their "contrastive" is named `diverse` here, as in their
code.
"""

# ruff: noqa: ARG001 (all strategies have the same signature)

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Literal

from datacreate.errors import UsageError

if TYPE_CHECKING:
    from datacreate.selection.embeddings import Embedder

QueueOrder = Literal["root", "chain", "tree", "farthest_first"]

Texts = Sequence[str]
Indices = Sequence[int]

Choose = Callable[[str, Texts, Random, "Embedder | None"], Indices]
"""(text of the parent, texts of the children, rng, embedder) -> indices of the next parents, in order."""


@dataclass(frozen=True)
class Strategy:
    """How the next parents are chosen."""

    queue: QueueOrder  # the order in which chosen children become parents
    needs_embedder: bool  # whether `choose` compares texts, or the queue compares vectors
    choose: Choose


STRATEGIES: dict[str, Strategy] = {}  # by name


def strategy(*, queue: QueueOrder = "chain", needs_embedder: bool = False) -> Callable[[Choose], Choose]:
    """Register a function as a strategy under its own name."""

    def register(choose: Choose) -> Choose:
        STRATEGIES[choose.__name__.rstrip("_")] = Strategy(queue, needs_embedder, choose)
        return choose

    return register


def find_strategy(name: str) -> Strategy:
    """The strategy with this name. Raises UsageError if there is none."""
    if name not in STRATEGIES:
        raise UsageError(f"unknown strategy {name!r}; choose one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


@strategy(queue="root")
def naive(parent: str, children: Texts, rng: Random, embedder: Embedder | None) -> Indices:
    """Always the formatting example."""
    return ()


@strategy()
def random_(parent: str, children: Texts, rng: Random, embedder: Embedder | None) -> Indices:
    """One child at random."""
    return (rng.randrange(len(children)),)


@strategy(needs_embedder=True)
def diverse(parent: str, children: Texts, rng: Random, embedder: Embedder | None) -> Indices:
    """The child least similar to its parent."""
    scores = _cosines(parent, children, embedder)
    return (scores.index(min(scores)),)


@strategy(needs_embedder=True)
def similar(parent: str, children: Texts, rng: Random, embedder: Embedder | None) -> Indices:
    """The child most similar to its parent."""
    scores = _cosines(parent, children, embedder)
    return (scores.index(max(scores)),)


@strategy(queue="tree")
def tree(parent: str, children: Texts, rng: Random, embedder: Embedder | None) -> Indices:
    """Every child, breadth first."""
    return rng.sample(range(len(children)), len(children))


@strategy(queue="farthest_first", needs_embedder=True)
def coverage(parent: str, children: Texts, rng: Random, embedder: Embedder | None) -> Indices:
    """Every child; the queue chooses the one farthest from the parents used so far."""
    return range(len(children))


def _cosines(parent: str, children: Texts, embedder: Embedder | None) -> list[float]:
    """The cosine of the parent to each of its children."""
    assert embedder, "a strategy with `needs_embedder` gets one"
    vectors = embedder.encode([parent, *children])
    return [float(cosine) for cosine in vectors[1:] @ vectors[0]]  # (n, dim) @ (dim,) -> (n,)
