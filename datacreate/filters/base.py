"""The interface of a filter and of its settings. `registry.py` lists all filters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from datacreate.formats.validate import Candidate, Reason
from datacreate.settings import OrOff, Settings, setting

if TYPE_CHECKING:
    from datacreate.filters.held_out import HeldOutSet
    from datacreate.selection.accepted_vectors import AcceptedVectors

Notify = Callable[[str], None]
"""Shows a line to the user."""

Threshold = Annotated[float | None, OrOff]
"""A similarity above 0 and at most 1; None and the word `off` switch the filter off."""


def no_notify(line: str) -> None:
    """A `Notify` that shows nothing."""


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


class BaseFilterSettings(Settings):
    """The settings of one filter: the command line options, config.json and reports are made from them.

    The first setting switches the filter: None, False and () mean off.
    """

    filter_name: ClassVar[str]
    reason: ClassVar[Reason]

    @classmethod
    def own_settings(cls) -> list[str]:
        """The names of the filter's settings."""
        return list(cls.model_fields)

    def make(self, inputs: FilterInputs) -> Filter:
        """The filter with these settings."""
        raise NotImplementedError


def quality(help: str, **options: Any) -> Any:
    """A setting in the quality group of `--help`."""
    return setting(help, "quality", **options)


def threshold(help: str, *, default: float | None = None, metavar: str = "SHARE|off") -> Any:
    """A `Threshold` setting."""
    return quality(help, default=default, gt=0, le=1, metavar=metavar)
