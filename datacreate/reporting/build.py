"""Everything below some folders -> a Report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from datacreate.dataset_metrics import DatasetMetrics
from datacreate.errors import RunError
from datacreate.reporting.arrange import tables
from datacreate.reporting.cells import Cells
from datacreate.reporting.collect import Found, collect, spelled
from datacreate.reporting.created import created_set
from datacreate.reporting.curves import curves
from datacreate.reporting.distance import find_likeness
from datacreate.reporting.paper import load_paper
from datacreate.reporting.tables import CreatedSet, Report, Skipped

Note = Callable[[str], None]
"""Takes a line about what is going on."""


def build_report(paths: Sequence[Path], *, encoder: str | None = None, note: Note = lambda _: None) -> Report:
    """The report of all evaluations and creation runs below `paths`.

    `encoder` measures distances and the Vendi score, see `distance.find_likeness`. What is
    damaged is skipped and named in the report. Raises UsageError if a path is no folder, RunError if
    there is nothing to report, CheckpointError if the encoder that is named is not here.
    """
    found = collect(paths)
    note(f"{len(found.measured)} evaluations, {len(found.runs)} creation runs")
    created, damaged = _created(found, encoder, note)
    skipped = (*found.skipped, *damaged)
    if not found.measured and not created:
        raise RunError(_nothing(paths, skipped))
    paper, cells = load_paper(), Cells()
    return Report(
        version=metadata.version("datacreate"),
        paths=tuple(map(spelled, paths)),
        evaluations=len(found.measured),
        tables=tuple(tables(found.measured, paper, cells)),
        curves=curves(found.measured, cells),
        created=created,
        skipped=skipped,
        citation=paper.citation,
        swapped_note=paper.swapped_note,
    )


def _created(
    found: Found, encoder: str | None, note: Note
) -> tuple[tuple[CreatedSet, ...], tuple[Skipped, ...]]:
    """The created sets, and the runs that cannot be read."""
    if not found.runs and encoder is None:
        return (), ()
    appraiser = DatasetMetrics(find_likeness(encoder))
    note(f"distances and diversity: {appraiser.likeness.name}")
    created: list[CreatedSet] = []
    skipped: list[Skipped] = []
    for path in found.runs:
        try:
            created.append(created_set(path, appraiser))
        except RunError as error:
            skipped.append(Skipped(spelled(path), str(error)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = f"cannot be read as a creation run ({type(error).__name__}: {error})"
            skipped.append(Skipped(spelled(path), " ".join(why.split())[:300]))
    return tuple(created), tuple(skipped)


def _nothing(paths: Sequence[Path], skipped: Sequence[Skipped]) -> str:
    where = ", ".join(map(spelled, paths))
    if not skipped:
        return (
            f"{where}: no evaluation and no creation run in there; "
            "run `datacreate evaluate` first, or name the folders that hold them"
        )
    first, others = skipped[0], len(skipped) - 1
    more = f" (and {others} more)" if others else ""
    return f"{where}: nothing that can be reported; {first.path}: {first.reason}{more}"
