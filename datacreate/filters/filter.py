"""The interface of a filter. `registry.py` lists the filters, settings.py has their settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from datacreate.filters.settings import FilterOptions
from datacreate.messages import Notify, no_notify
from datacreate.settings import FrozenModel

if TYPE_CHECKING:
    from datacreate.formats.candidate import Candidate, Reject, RejectReason
    from datacreate.selection.embeddings import PassedVectors


class RowCheck(ABC):
    """One check of valid examples against those that were added before, or against fixed rows.

    Every example that passes all checks is passed to `add`, in order. An example that a check rejects is also rejected
    after more additions.
    """

    reason: ClassVar[RejectReason]

    def prepare(self, notify: Notify = no_notify) -> None:
        """Do what takes long or may fail; called once before the first `prefetch` or `find_conflict`."""
        return

    def prefetch(self, candidates: Sequence[Candidate]) -> None:
        """Process a batch of examples before `find_conflict` is called for each, which is faster with a model."""
        return

    @abstractmethod
    def find_conflict(self, candidate: Candidate) -> str | None:
        """Why the example is rejected (such as the row that it repeats); None if it passes."""

    def add(self, candidate: Candidate, number: int) -> None:
        """Take an example into account that passed all checks; `number` is that of its request or line."""
        return


def first_reject(checks: Iterable[RowCheck], candidate: Candidate) -> Reject | None:
    """The reject by the first check that an example does not pass; None if it passes all."""
    for check in checks:
        if (detail := check.find_conflict(candidate)) is not None:
            return candidate.reject(check.reason, detail)
    return None


class Filter(RowCheck):
    """A check that options switch on. The constructor takes the settings and the `FilterInputs`."""

    name: ClassVar[str]
    setting_names: ClassVar[tuple[str, ...]]  # in `FilterOptions`; the first is None, False or () if off

    def __init__(self, settings: FilterOptions, inputs: FilterInputs) -> None:
        return

    @classmethod
    def is_on(cls, settings: FilterOptions) -> bool:
        return bool(getattr(settings, cls.setting_names[0]))


class DecontaminationRow(NamedTuple):
    """The inputs of a row of `--decontaminate`, with which those of a `Candidate` are compared."""

    inputs: tuple[str, ...]  # the passage included
    passage: str  # the context; empty if the examples have none

    @property
    def question(self) -> str:
        return "\n".join(text for text in self.inputs if text != self.passage)


class DecontaminationSetRef(FrozenModel):
    """The identity of a set of `--decontaminate`, as a run stores it."""

    name: str  # of the benchmark, or of the file, without its folder
    split: str | None  # of the benchmark; None for a file
    digest: str  # SHA-256 of the file

    @property
    def title(self) -> str:
        return f"{self.name} {self.split}" if self.split else self.name


@dataclass(frozen=True)
class DecontaminationSet:
    """A set of `--decontaminate`; `read` reads its rows."""

    ref: DecontaminationSetRef
    read: Callable[[], Iterable[DecontaminationRow]]
    by_ngram: bool = True  # False: its rows are of the same task as the examples, and share phrases with them


@dataclass(frozen=True)
class FilterInputs:
    """The data that filters may need beside their settings."""

    decontamination_sets: Sequence[DecontaminationSet] = ()
    vectors: PassedVectors | None = None  # embeddings of the examples that were added
    number_prefix: str = "an example of request"  # before the number of an added example; `line` in a file
