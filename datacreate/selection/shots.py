"""The examples that a prompt shows besides its parent; `draw_balanced` draws examples with balanced labels."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, TypeVar

from datacreate.formats.example import Example, Json, value_at
from datacreate.formats.roles import canonical_label
from datacreate.formats.task_format import TaskFormat

if TYPE_CHECKING:
    from datacreate.selection.queue import Parent  # imports numpy, which `benchmarks list` does not need

_LATEST = 256  # examples to draw from if there are too few roots

T = TypeVar("T")
Values = Mapping[str, Json]


class Shots:
    """Draws `count - 1` examples per prompt: from the roots, which a person wrote; only if they are too few, also
    from the latest ones that are accepted or wait.

    What is drawn depends on the commits before the request is made, so that a resumed run draws the same.
    """

    def __init__(self, roots: Sequence[Example], count: int, task_format: TaskFormat) -> None:
        self._roots = roots
        self._num_others = count - 1  # beside the parent
        self._answer = task_format.roles.answer if task_format.labels else None
        self._latest: deque[Values] = deque(maxlen=_LATEST)
        self._needs_latest = count > max(1, len(roots))

    def add(self, passed: Iterable[Values]) -> None:
        """Add examples that passed."""
        if self._needs_latest:
            self._latest.extend(passed)

    def replace(self, removed: Values | None, added: Values | None) -> None:
        """Stop showing a row that a reviewer removed; show what the reviewer put in its place."""
        if removed and removed in self._latest:
            self._latest.remove(removed)
        if added and self._needs_latest:
            self._latest.append(added)

    def draw(self, parent: Parent, seed: str) -> tuple[Example, ...]:
        """The examples beside the parent, with balanced labels; none if the prompt shows no parent.

        Roots come first, in their order, so that equal sets of roots give the same text.
        """
        if not self._num_others or not parent.line:
            return ()
        rng = Random(seed)
        parent_values = json.loads(parent.line)
        roots = [root.values for index, root in enumerate(self._roots) if -index != parent.number]
        chosen = draw_balanced(roots, self._num_others, rng, self._label, [parent_values])
        chosen.sort(key=roots.index)
        latest = [values for values in self._latest if values != parent_values]
        missing = self._num_others - len(chosen)
        chosen += draw_balanced(latest, missing, rng, self._label, [parent_values, *chosen])
        return tuple(map(Example, chosen))

    def _label(self, values: Values) -> Json:
        return value_at(values, self._answer)


def draw_balanced(
    items: Sequence[T],
    count: int,
    rng: Random,
    label_of: Callable[[T], Json],
    shown: Iterable[T] = (),
    fits: Callable[[T], bool] = lambda _: True,
) -> list[T]:
    """Draw at most `count` items that fit, at random: with those `shown` already, labels are equally frequent."""
    items_by_label: dict[str, deque[T]] = {}
    for item in rng.sample(items, len(items)):
        items_by_label.setdefault(canonical_label(label_of(item)), deque()).append(item)
    counts = Counter(canonical_label(label_of(item)) for item in shown)
    drawn: list[T] = []
    while items_by_label and len(drawn) < count:
        label = min(items_by_label, key=counts.__getitem__)
        item = items_by_label[label].popleft()
        if not items_by_label[label]:
            del items_by_label[label]
        if fits(item):
            drawn.append(item)
            counts[label] += 1
    return drawn
