"""What a step needs that may not be here: looked at before the first step is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datacreate.benchmarks import digest, find_benchmark, has_split
from datacreate.checkpoints import resolve
from datacreate.errors import DatacreateError


@dataclass(frozen=True)
class Need:
    """A split of a benchmark, a split to draw a formatting example from, or a checkpoint."""

    kind: Literal["split", "example", "instruct", "encoder"]
    name: str
    split: str = ""
    trust_remote_code: bool = False  # whether a checkpoint may bring its publisher's


def missing(need: Need) -> str | None:
    """Why the need is not met, and what to do about it; None where it is. Reads no rows or weights."""
    try:
        if need.kind == "instruct" or need.kind == "encoder":
            resolve(need.name, need.kind, trust_remote_code=need.trust_remote_code)
            return None
        benchmark = find_benchmark(need.name)
        if need.kind == "split":
            digest(benchmark, need.split)
        elif not has_split(benchmark, "train"):
            digest(benchmark, "dev")
    except DatacreateError as error:
        return str(error)
    return None
