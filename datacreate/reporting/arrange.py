"""Evaluations -> tables, none of which mixes what cannot be compared.

A table has one encoder, one way of training, one way of choosing the model and one generator. Arms
without a generator stand in every table of their kind; what is not trained stands in all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from datacreate.finetuning.records import Selection
from datacreate.finetuning.statistics import minimum_detectable_effect
from datacreate.reporting.cells import Cells, constant_cell
from datacreate.reporting.collect import Measured
from datacreate.reporting.comparisons import Candidate, differences
from datacreate.reporting.lines import (
    CONSTANT,
    ZERO_SHOT,
    ArmColumn,
    Line,
    Tested,
    clashing,
    lines,
    trained_for,
)
from datacreate.reporting.paper import Paper
from datacreate.reporting.tables import Column, RequestSlot, Row, Table

_PLACES: dict[RequestSlot, str] = {"in": "In distribution", "out": "Out of distribution"}
_CHOSEN: dict[Selection, str] = {
    "held-out": "model chosen on held-out training rows",
    "human": "model chosen on the human dev split",
    "none": "no model chosen",
}


@dataclass(frozen=True, order=True)
class Kind:
    """What all trained models of a table have in common."""

    encoder: str
    sha256: str
    settings: str
    selection: Selection

    @classmethod
    def of(cls, one: Measured) -> Kind:
        e = one.evaluation
        return cls(e.encoder, e.encoder_sha256, e.recipe, e.selection)


@dataclass(frozen=True)
class _Group:
    """The evaluations of a table in distribution and of one out of distribution."""

    kind: Kind
    generator: str | None
    trained: tuple[Measured, ...]
    beside: tuple[Measured, ...]  # not trained


def is_trained(one: Measured) -> bool:
    return one.evaluation.condition.name not in (CONSTANT, ZERO_SHOT)


def tables(measured: Sequence[Measured], paper: Paper, cells: Cells) -> list[Table]:
    """All tables that have rows, those in distribution first."""
    groups = list(_groups(measured))
    encoders = {(group.kind.encoder, group.kind.sha256) for group in groups}
    places: tuple[RequestSlot, ...] = ("in", "out")
    made = [_table(place, group, paper, cells, encoders) for place in places for group in groups]
    return [table for table in made if table.rows]


def _groups(measured: Sequence[Measured]) -> Iterator[_Group]:
    trained = [one for one in measured if is_trained(one)]
    untrained = [one for one in measured if not is_trained(one)]
    writers = _generators(trained)
    for kind in sorted({Kind.of(one) for one in trained}):
        of_kind = [one for one in trained if Kind.of(one) == kind]
        generators: list[str | None] = [*sorted(_generators(of_kind))]
        for generator in generators or [None]:
            mine = [one for one in of_kind if one.evaluation.condition.generator in (None, generator)]
            # A generator that wrote nothing that was trained on answers beside all that did.
            others = writers - {generator}
            beside = [one for one in untrained if one.evaluation.encoder not in others]
            yield _Group(kind, generator, tuple(mine), tuple(beside))
    if untrained and not trained:
        yield _Group(Kind("-", "-", "-", "none"), None, (), tuple(untrained))


def _generators(measured: Sequence[Measured]) -> set[str]:
    return {generator for one in measured if (generator := one.evaluation.condition.generator) is not None}


def _table(
    place: RequestSlot, group: _Group, paper: Paper, cells: Cells, encoders: set[tuple[str, str]]
) -> Table:
    drawn = _lines(place, group, paper)
    keys = sorted({column for line in drawn for column in line.placed}, key=lambda column: column.rank)
    rows: list[Row] = []
    printed: set[tuple[str, str]] = set()  # pairs beside whose first row the paper's figures stand
    for line in drawn:
        pair = (line.train, line.test.benchmark)
        shows = line.test.split == "test" and pair not in printed
        printed |= {pair} if shows else set()
        rows.append(_row(line, keys, cells, paper if shows else None))
    candidates = [
        [
            Candidate(place, line.placed[key].models, line.placed[key].everywhere)
            for place, key in enumerate(keys, 1)
            if key in line.placed
        ]
        for line in drawn
    ]
    kind = group.kind
    there = {(row.train, row.test) for row in rows}
    return Table(
        place=place,
        title=_title(place, group, encoders),
        encoder=kind.encoder,
        encoder_sha256=kind.sha256,
        settings=kind.settings,
        selection=kind.selection,
        generator=group.generator,
        columns=(Column(CONSTANT, CONSTANT), *(Column(key.condition, key.title) for key in keys)),
        rows=tuple(rows),
        differences=differences(candidates),
        missing=tuple(pair for pair in _wanted(place, paper) if pair not in there),
    )


def _lines(place: RequestSlot, group: _Group, paper: Paper) -> list[Line]:
    """The rows of a table, in the paper's order and then by name."""
    tested: defaultdict[tuple[str, Tested], list[Measured]] = defaultdict(list)
    for one in group.trained:
        if (trained_for(one) == one.evaluation.benchmark) == (place == "in"):
            tested[trained_for(one), Tested.of(one)].append(one)
    if place == "in":  # who was trained for nothing has a row in distribution
        for one in group.beside:
            tested.setdefault((one.evaluation.benchmark, Tested.of(one)), [])
    rank = _ranks(_wanted(place, paper))
    split, beside = clashing(group.trained), _named(group)
    return [
        line
        for train, test in sorted(
            tested, key=lambda key: (*rank(key[0], key[1].benchmark), key[1].split != "test", key)
        )
        for line in lines(
            train,
            test,
            tested[train, test],
            [(one, name) for one, name in beside if Tested.of(one) == test],
            split,
        )
    ]


def _named(group: _Group) -> list[tuple[Measured, str | None]]:
    """What is not trained, with the name of its column: none for the table's generator.

    Two checkpoints of one name are told apart by their weights.
    """
    weights = {(one.evaluation.encoder, one.evaluation.encoder_sha256) for one in group.beside}
    twins = {name for name, number in Counter(name for name, _ in weights).items() if number > 1}

    def name(one: Measured) -> str | None:
        encoder = one.evaluation.encoder
        if encoder in twins:
            return f"{encoder} (weights {one.evaluation.encoder_sha256[:8]})"
        return None if encoder == group.generator else encoder

    return [(one, name(one)) for one in group.beside]


def _wanted(place: RequestSlot, paper: Paper) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in paper.benchmarks) if place == "in" else paper.pairs


def _ranks(wanted: Sequence[tuple[str, str]]) -> Callable[[str, str], tuple[int, str, str]]:
    places = {pair: place for place, pair in enumerate(wanted)}
    return lambda train, test: (places.get((train, test), len(places)), train, test)


def _row(line: Line, keys: Sequence[ArmColumn], cells: Cells, paper: Paper | None) -> Row:
    e = line.witness.evaluation
    made = [cells.of(line.placed[key].models) if key in line.placed else None for key in keys]
    printed = [
        paper.figure(key.strategy, line.train, line.test.benchmark) if paper and not key.sampled else None
        for key in keys
    ]
    return Row(
        train=line.train,
        test=line.test.benchmark,
        split=line.test.split,
        digest=line.test.digest,
        rows=e.scores.rows,
        head=e.head,
        classes=e.scores.classes,
        smallest_difference=minimum_detectable_effect(e.scores.rows),
        count=line.count,
        cells=(constant_cell(line.witness), *made),
        paper=(None, *printed),
    )


def _title(place: RequestSlot, group: _Group, encoders: set[tuple[str, str]]) -> str:
    """What sets the table apart; two encoders of one name are told apart by their weights."""
    kind = group.kind
    if kind.encoder == "-":
        return f"{_PLACES[place]}: nothing trained"
    twins = sum(name == kind.encoder for name, _ in encoders) > 1
    parts = [
        f"{kind.encoder} (weights {kind.sha256[:8]})" if twins else kind.encoder,
        f"settings {kind.settings}",
        _CHOSEN[kind.selection],
        *([f"rows written by {group.generator}"] if group.generator else []),
    ]
    return f"{_PLACES[place]}: {', '.join(parts)}"
