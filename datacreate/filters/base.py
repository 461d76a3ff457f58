"""The interface of a filter. `registry.py` lists all filters with their settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from datacreate.messages import Notify, no_notify

if TYPE_CHECKING:
    from datacreate.filters.held_out import HeldOutSet
    from datacreate.formats.validate import Candidate, Reason
    from datacreate.selection.accepted_vectors import AcceptedVectors


class Filter(ABC):
    """One check of valid examples against those accepted before, or against fixed rows.

    `match` changes nothing; accepted examples are passed to `add`, in order. A filter that rejects an example
    always rejects it later too: filters only ever see more.
    """

    reason: ClassVar[Reason]

    def prepare(self, notify: Notify = no_notify) -> None:
        """Do what takes long or may fail before the first `match`; otherwise the first `match` does it."""
        return

    def prefetch(self, candidates: Sequence[Candidate]) -> None:
        """Process examples that are about to be matched as one batch, which is faster with a model."""
        return

    @abstractmethod
    def match(self, candidate: Candidate) -> str | None:
        """Why the example is rejected (such as the row that it repeats); None if it passes."""

    def add(self, candidate: Candidate) -> None:
        """Take an accepted example into account."""
        return


@dataclass(frozen=True)
class FilterInputs:
    """What filters may need beyond their settings."""

    held_out: Sequence[HeldOutSet] = ()
    accepted: AcceptedVectors | None = None  # embeddings of the accepted examples
    embedding_sha256: str | None = None  # of the embedding model; names the cache of held-out embeddings
