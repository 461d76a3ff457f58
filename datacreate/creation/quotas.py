"""Quotas: how many more examples each label, and each value of an attribute, may have.

`ValueQuotas` has those of the labels, or of one dimension of `--attributes`; `RunQuotas` has all of a run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Self

from datacreate.creation.recipe import METHODS
from datacreate.errors import UsageError
from datacreate.formats.example import FieldPath, Json, value_at
from datacreate.formats.roles import canonical_label
from datacreate.formats.task_format import TaskFormat
from datacreate.runs.config import CreateConfig, RunSpec
from datacreate.runs.decisions import Decision
from datacreate.runs.log import Commit
from datacreate.settings import check_shares

_ROUNDING = 1e-9  # so that a third of 9 is 3, not 2


class ValueQuotas:
    """Limits the examples of each value, so that of `count` examples each value has its share, within one example.

    4 and 4.0 are one value, true is not 1. An unknown value has a quota of 0.
    """

    def __init__(self, values: Sequence[Json], count: int, shares: Sequence[float] | None = None) -> None:
        """`shares` has the share of each value; they add up to 1. None: equal shares."""
        self._values = {canonical_label(value): value for value in values}
        shares = shares or [1 / len(values)] * len(values)
        self._floors = {  # -1 for a share of 0, which gets no spare example either
            key: math.floor(count * share + _ROUNDING) if share else -1
            for key, share in zip(self._values, shares, strict=True)
        }
        self._spare = count - sum(max(0, floor) for floor in self._floors.values())
        self._accepted = dict.fromkeys(self._values, 0)

    def remaining(self, value: Json) -> int:
        """How many more examples with this value can be accepted."""
        key = canonical_label(value)
        if key not in self._accepted:
            return 0
        until_floor = self._floors[key] - self._accepted[key]
        # The first values that reach their floor may exceed it by one, as long as there are spare examples.
        may_exceed_floor = self._spare > 0 and until_floor >= 0
        return max(0, until_floor + may_exceed_floor)

    def add(self, value: Json, sign: int = 1) -> None:
        """Count an accepted example with this value; with `sign` -1, one that is no longer accepted."""
        key = canonical_label(value)
        if min(self._accepted[key], self._accepted[key] + sign) == self._floors[key]:
            self._spare -= sign
        self._accepted[key] += sign

    def assign(self, count: int, rng: random.Random) -> list[Json]:
        """Choose `count` values for the examples of one request, in proportion to what each value still needs.

        Returns them in random order. No value is assigned more often than it needs while others need some. Remainders
        are drawn, weighted by need, so that values that the model often fails at catch up.
        """
        needs = {key: need for key, value in self._values.items() if (need := self.remaining(value))}
        needs = needs or dict.fromkeys(self._values, 1)
        total = sum(needs.values())
        assigned = [key for key, need in needs.items() for _ in range(count * need // total)]
        undrawn: list[str] = []
        while len(assigned) < count:
            undrawn = undrawn or [key for key, need in needs.items() if assigned.count(key) < need] or list(needs)
            [key] = rng.choices(undrawn, [needs[key] for key in undrawn])
            undrawn.remove(key)
            assigned.append(key)
        rng.shuffle(assigned)
        return [self._values[key] for key in assigned]


class RunQuotas:
    """Limits the examples of each label and of each value of an attribute, and assigns values to new requests.

    A request is assigned one value of each dimension, drawn by the examples that the values need beyond those expected
    from uncommitted requests. Dimensions are independent: while examples are missing, each dimension has a value that
    needs some, and any such combination can be assigned. So every run can be finished.
    """

    def __init__(
        self,
        labels: ValueQuotas | None,
        dimensions: Mapping[str, Mapping[str, float]],
        count: int,
        answer: FieldPath | None = None,
    ) -> None:
        """`labels`: None if they have no quotas. `dimensions`: name -> value -> its share. `answer` has the label."""
        self.labels = labels
        self._answer = answer
        self._attributes = {
            name: ValueQuotas(list(shares), count, list(shares.values())) for name, shares in dimensions.items()
        }
        self.missing = count  # the number of examples that the run still needs
        # dimension -> value -> its uncommitted requests
        self._requests = {name: dict.fromkeys(shares, 0) for name, shares in dimensions.items()}
        self._assigned: dict[int, Mapping[str, str]] = {}  # uncommitted request -> its values

    @classmethod
    def of(cls, spec: RunSpec, task_format: TaskFormat, count: int) -> Self:
        """The quotas of a run of `count` examples, before the first."""
        labels = None
        if task_format.labels and METHODS[spec.recipe].assigns_labels:
            labels = ValueQuotas(task_format.labels, count, list((spec.label_ratio or {}).values()))
        dimensions = {dimension.name: dimension.shares for dimension in spec.attributes}
        return cls(labels, dimensions, count, task_format.roles.answer)

    def assign_attributes(self, request_number: int, examples_per_request: float, rng: random.Random) -> dict[str, str]:
        """Draw a value of each dimension for a new request; returns dimension -> value.

        A value is drawn in proportion to the examples that it needs beyond those expected from uncommitted requests.
        """
        assigned = {}
        for name, requests in self._requests.items():
            needs = self._needs(name)
            unmet = [max(0.0, need - examples_per_request * requests[value]) for value, need in needs.items()]
            [value] = rng.choices(list(needs), unmet if any(unmet) else list(needs.values()))
            assigned[name] = value
            requests[value] += 1
        self._assigned[request_number] = assigned
        return assigned

    def end_request(self, request_number: int) -> None:
        """Count a request as committed: no more examples of its values are expected from it.

        These are the values of `assign_attributes`, not of the commit: replayed with a larger count, they may differ.
        """
        for name, value in self._assigned.pop(request_number, {}).items():
            self._requests[name][value] -= 1

    def needs_request(self, examples_per_request: float) -> bool:
        """Whether the uncommitted requests are expected to give too few examples of a dimension's values."""
        for name, requests in self._requests.items():
            needs = self._needs(name).items()
            if sum(min(need, examples_per_request * requests[value]) for value, need in needs) < self.missing:
                return True
        return False

    def _needs(self, name: str) -> dict[str, int]:
        """How many more examples each value of a dimension needs."""
        return {value: self._attributes[name].remaining(value) for value in self._requests[name]}

    def label_is_full(self, values: Mapping[str, Json]) -> bool:
        """Whether no more example with the label of this one can be accepted; False if labels have no quotas."""
        return self.labels is not None and not self.labels.remaining(value_at(values, self._answer))

    def full_attribute(self, attributes: Mapping[str, str]) -> str | None:
        """The first of these values that may not have another example, as `topic: sport`; None without one."""
        full = (f"{name}: {value}" for name, value in attributes.items() if not self._attributes[name].remaining(value))
        return next(full, None)

    def add(self, values: Mapping[str, Json], attributes: Mapping[str, str], sign: int = 1) -> None:
        """Count an accepted example with these attributes; with `sign` -1, one that is no longer accepted."""
        self.missing -= sign
        if self.labels:
            self.labels.add(value_at(values, self._answer), sign)
        for name, value in attributes.items():
            self._attributes[name].add(value, sign)

    def add_record(self, record: Commit | Decision) -> None:
        """Count the rows that a record of the log adds to the training set, or removes from it."""
        for values, sign in record.changes:
            self.add(values, record.attributes, sign)


def checked_label_ratio(config: CreateConfig, task_format: TaskFormat) -> dict[str, float] | None:
    """The share of each label, in their order; None if all are equal. Raises UsageError if the shares are wrong."""
    if config.label_ratio is None:
        return None
    names = [str(label) for label in task_format.labels or ()]
    if not names:
        raise UsageError(
            f"--label-ratio: the format {task_format.name} has no fixed labels; give them with --labels FIELD=a,b,c"
        )
    if config.label_ratio.keys() != set(names):
        raise UsageError(
            f"--label-ratio: give a share for each of the labels {', '.join(names)}; use 0 for a label that should not "
            "occur"
        )
    ratio = {name: config.label_ratio[name] for name in names}
    check_shares("--label-ratio", ratio)
    return ratio
