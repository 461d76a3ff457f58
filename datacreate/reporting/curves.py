"""Primary figure against number of training rows, in distribution."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from datacreate.reporting.arrange import Kind, is_trained
from datacreate.reporting.cells import Cells
from datacreate.reporting.collect import Measured
from datacreate.reporting.lines import Tested, trained_for
from datacreate.reporting.tables import Curve, CurvePoint


def curves(measured: Sequence[Measured], cells: Cells) -> tuple[Curve, ...]:
    """A curve per arm, generator, kind of training and test set, by name.

    Where a number of rows is there both as all of a set and as a sample of a larger one, the samples
    are the point: the other points of a curve are mostly samples too.
    """
    found: defaultdict[tuple[Kind, str, Tested, str], defaultdict[int, list[Measured]]]
    found = defaultdict(lambda: defaultdict(list))
    for one in measured:
        condition = one.evaluation.condition
        if is_trained(one) and trained_for(one) == one.evaluation.benchmark:
            found[Kind.of(one), condition.name, Tested.of(one), condition.generator or ""][
                condition.count
            ].append(one)
    return tuple(
        Curve(
            condition=condition,
            benchmark=test.benchmark,
            split=test.split,
            encoder=kind.encoder,
            settings=kind.settings,
            selection=kind.selection,
            generator=generator or None,
            points=tuple(_point(count, models, cells) for count, models in sorted(counts.items())),
        )
        for (kind, condition, test, generator), counts in sorted(found.items(), key=lambda item: item[0])
    )


def _point(count: int, models: Sequence[Measured], cells: Cells) -> CurvePoint:
    sampled = [one for one in models if not one.evaluation.condition.full]
    cell = cells.of(sampled or models)
    low, high = cell.primary_interval
    return CurvePoint(count, cell.primary, low, high, cell.accuracy, cell.models, cell.collapsed)
