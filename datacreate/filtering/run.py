"""`datacreate filter` for Python: the checks of a run's or a file's rows, from names to figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from datacreate.engines.factory import checkpoint_of, make_engine
from datacreate.engines.settings import EngineOptions
from datacreate.errors import UsageError
from datacreate.filtering.apply import Progress, Screened, screen
from datacreate.filtering.verifier import Verifier
from datacreate.filters.base import Filter, Say, silently
from datacreate.filters.held_out_sets import HeldOutSet, held_out_sets
from datacreate.filters.registry import embedder_of, filters_of
from datacreate.filters.settings import FilterSettings, filter_report
from datacreate.formats.validate import Reason
from datacreate.runs.rows import read_rows
from datacreate.selection.accepted_vectors import AcceptedVectors
from datacreate.settings_errors import SettingsError


@dataclass(frozen=True)
class Filtered:
    """What was looked at, how strictly, and what came of it."""

    source: Path
    format: str
    settings: FilterSettings
    encoder: str
    compared_with: tuple[HeldOutSet, ...]
    balance: bool
    out: Path | None
    rejects: Path | None
    found: Screened
    verifier: Mapping[str, Any] | None = None  # model and threshold

    def document(self) -> dict[str, Any]:
        """All of it as JSON has it; `filters` are in the order in which they were asked."""
        found = self.found
        filters = filter_report(self.settings, found.dropped, self.encoder)
        if self.verifier:
            dropped = {"reason": Reason.DISAGREES.value, "rejected": found.dropped[Reason.DISAGREES]}
            filters.append({"name": "verifier", "on": True, **self.verifier, **dropped})
        return {
            "source": str(self.source),
            "format": self.format,
            "rows": found.rows,
            "invalid": found.invalid,
            "first_invalid": found.first_invalid or None,
            "filters": filters,
            "compared_with": [vars(opponent) for opponent in self.compared_with],
            "balance": {"on": self.balance, "dropped": found.dropped[Reason.OVER_QUOTA]},
            "kept": found.kept,
            "labels": {"before": found.labels_before, "after": found.labels_after},
            "out": self.out and str(self.out),
            "rejects": self.rejects and str(self.rejects),
        }


def filter_rows(
    source: Path,
    *,
    exact: bool = True,
    near: float | None = 0.7,
    semantic: float | None = None,
    ngram: int = 8,
    decontaminate_near: float | None = 0.7,
    decontaminate: Sequence[str] | Literal["all"] = "all",
    encoder: str = "all-mpnet-base-v2",
    format: str | None = None,
    labels: Mapping[str, str] | None = None,
    ranges: Mapping[str, str] | None = None,
    verifier: str | None = None,
    threshold: float | None = None,
    engine: EngineOptions | None = None,
    balance: bool = False,
    out: Path | None = None,
    rejects: Path | None = None,
    say: Say = silently,
    progress: Progress | None = None,
) -> Filtered:
    """Check the rows of a run directory or of a JSONL file; without `out` nothing is written.

    `near` (share of word shingles) and `semantic` (cosine of the `encoder`'s embeddings) are above 0 and at
    most 1, or None for off; `ngram` words in a row, or `decontaminate_near` of the words, are a repeat of a row of
    the benchmarks `decontaminate`. The `verifier`, a model that is asked as `engine` says, must give a row's answer
    at least the probability `threshold`. `say` is told what has to be prepared.
    `format`, `labels` (field -> "a,b,c") and `ranges` (field -> "low..high") say what a file's rows are.
    Raises UsageError for a setting out of range; BenchmarkError or CheckpointError for what is not here;
    EngineError if the verifier cannot be asked; otherwise as `read_rows` and `screen`.
    """
    try:
        settings = FilterSettings(
            exact=exact, near=near, semantic=semantic, ngram=ngram, decontaminate_near=decontaminate_near
        )
    except ValidationError as error:
        raise UsageError(SettingsError.first(error).on_command_line({})) from None
    met = held_out_sets(decontaminate)
    settings = settings.model_copy(
        update={"decontaminate": tuple(dict.fromkeys(each.benchmark for each in met))}
    )
    embedder, sha256 = (None, None) if semantic is None else embedder_of(encoder)
    rows = read_rows(source, format, labels, ranges)
    filters: list[Filter] = filters_of(settings, met, AcceptedVectors(embedder) if embedder else None, sha256)
    with ExitStack() as stack:
        told = None
        if verifier is not None:
            options = engine or EngineOptions()
            checkpoint = checkpoint_of(verifier, options)
            asked = make_engine(checkpoint, options, count=rows.total, notify=say)
            stack.callback(asked.close)
            filters.append(last := Verifier(asked, rows.format, threshold, tuple(filters)))
            told = {"model": checkpoint.name, "threshold": last.threshold}
        found = screen(
            rows,
            filters,
            balance=balance,
            out=out,
            rejects=rejects,
            embedder=embedder,
            say=say,
            progress=progress,
        )
    return Filtered(source, rows.format.name, settings, encoder, met, balance, out, rejects, found, told)
