"""The interface of a filter. `FILTERS` (__init__.py) lists the filters.

`create --help` imports the modules of all filters, since their options are there. So slow libraries are imported
inside the functions that use them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from datacreate.formats.reject import Reject, RejectReason
from datacreate.settings import FrozenModel, OrOff, Settings, setting

if TYPE_CHECKING:
    from datacreate.formats.candidate import Candidate
    from datacreate.selection.embeddings import PassedVectors

Threshold = Annotated[float | None, OrOff]
"""A similarity above 0 and at most 1; None and the word `off` switch the filter off."""


def threshold_setting(help_text: str, *, default: float | None = None, metavar: str = "SHARE|off") -> Any:
    """A setting that switches a filter on: the minimum similarity that it rejects."""
    return setting(help_text, "quality", default=default, gt=0, le=1, metavar=metavar)


class Filter(ABC):
    """One check of valid examples against those that were added before, or against fixed rows.

    `add` gets every example that neither a filter nor another check rejects, in order. An example that a filter rejects
    is also rejected after more additions.
    """

    name: ClassVar[str]
    reason: ClassVar[RejectReason]
    option_names: ClassVar[tuple[str, ...]]  # the first is None, False or () if the filter is off
    needs_embedder: ClassVar[bool] = False  # `FilterResources` has vectors if this filter is on
    remaining_if_off: ClassVar[str] = ""  # what the dataset card says the data may still have

    def __init__(self, options: Settings, resources: FilterResources) -> None:  # noqa: B027 - only some filters need it
        """`options` has the filter's own, and may have others. A filter that is not in `FILTERS` may differ."""

    @classmethod
    def is_on(cls, options: Settings) -> bool:
        """Whether these options switch the filter on."""
        return bool(getattr(options, cls.option_names[0]))

    @classmethod
    def report(cls, options: Settings, rejected: Mapping[RejectReason, int]) -> dict[str, Any]:
        """The options of the filter and how many examples it rejected, as JSON."""
        values = options.model_dump(mode="json", include=set(cls.option_names))
        return {
            "name": cls.name,
            "reason": cls.reason,
            "on": cls.is_on(options),
            "settings": {name: value for name, value in values.items() if not isinstance(value, bool)},
            "rejected": rejected.get(cls.reason, 0),
        }

    def prepare(self) -> None:  # noqa: B027
        """Do, once, what takes long or may fail, before `prefetch` and `find_problem`; `add` may come before it."""

    def prefetch(self, candidates: Sequence[Candidate]) -> None:  # noqa: B027
        """Process a batch of examples before `find_problem` is called for each, which is faster with a model."""

    @abstractmethod
    def find_problem(self, candidate: Candidate) -> str | None:
        """Why the example is rejected (such as the row that it repeats); None if it passes."""

    def add(self, candidate: Candidate, number: int) -> None:  # noqa: B027
        """Take an example into account that is accepted, or waits to be; `number` is that of its request or line."""


def first_reject(filters: Iterable[Filter], candidate: Candidate) -> Reject | None:
    """The reject by the first filter that an example does not pass; None if it passes all."""
    for candidate_filter in filters:
        if (detail := candidate_filter.find_problem(candidate)) is not None:
            return candidate.reject(candidate_filter.reason, detail)
    return None


class DecontaminationRow(NamedTuple):
    """The inputs of a row of `--decontaminate`, with which those of a `Candidate` are compared."""

    inputs: tuple[str, ...]  # the passage included
    passage: str  # the context; empty if the examples have none

    @property
    def text_without_passage(self) -> str:
        """The inputs without the passage, as one text."""
        return "\n".join(text for text in self.inputs if text != self.passage)


class DecontaminationSetSpec(FrozenModel):
    """The identity of a set of `--decontaminate`, as a run stores it."""

    name: str  # of the benchmark, or of the file, without its folder
    split: str | None  # of the benchmark; None for a file
    digest: str  # SHA-256 of the file

    @property
    def title(self) -> str:
        """Its name for people: of a benchmark with the split."""
        return f"{self.name} {self.split}" if self.split else self.name


@dataclass(frozen=True)
class DecontaminationSet:
    """A set of `--decontaminate`; `read` reads its rows."""

    spec: DecontaminationSetSpec
    read: Callable[[], Iterable[DecontaminationRow]]
    by_ngram: bool = True  # False: its rows are of the same task as the examples, and share phrases with them


@dataclass(frozen=True)
class FilterResources:
    """The data that filters may need besides their options."""

    decontamination_sets: Sequence[DecontaminationSet] = ()
    vectors: PassedVectors | None = None  # embeddings of the examples that were added
    number_prefix: str = "an example of request"  # before the number of an added example; `line` in a file
