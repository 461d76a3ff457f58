"""Put what a source brought in place, and say what is in it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Literal

from datacreate.benchmarks import store
from datacreate.benchmarks.findings import Findings, look_at
from datacreate.benchmarks.manifest import Manifest, SplitRecord
from datacreate.benchmarks.reference import Brought, parse_rows, read_reference
from datacreate.benchmarks.registry import SPLITS, Benchmark, Split
from datacreate.benchmarks.rows import Row
from datacreate.errors import BenchmarkError

State = Literal["imported", "unchanged", "kept", "refused", "missing"]

Bring = Callable[[Mapping[Split, list[Row]]], Brought]
"""What a source gives, told the rows of the splits that are here and will stay."""


@dataclass(frozen=True)
class SplitReport:
    """What became of one split. `expected` is the paper's number of rows."""

    split: Split
    state: State
    expected: int
    findings: Findings | None = None  # None where it is missing
    remark: str | None = None

    @property
    def counts_agree(self) -> bool:
        """Whether it has the paper's number of rows; a missing split has no wrong number."""
        return self.findings is None or self.findings.rows == self.expected


@dataclass(frozen=True)
class ImportReport:
    """What an import did with one benchmark."""

    name: str
    source: str
    splits: tuple[SplitReport, ...]

    @property
    def counts_agree(self) -> bool:
        return all(split.counts_agree for split in self.splits)

    @property
    def refused(self) -> bool:
        """Whether nothing was put in place, since a number of rows is not the paper's."""
        return any(split.state == "refused" for split in self.splits)


@dataclass(frozen=True)
class _Held:
    """A split as it will lie in the home."""

    state: State
    rows: list[Row]
    content: bytes
    source: str
    note: str | None = None
    apart_from: Mapping[Split, str] | None = None
    remark: str | None = None

    @property
    def sha256(self) -> str:
        return store.sha256(self.content)


def import_reference(
    folder: Path, benchmark: Benchmark, *, any_count: bool = False, replace: bool = False
) -> ImportReport | None:
    """Import one benchmark from a folder in the reference layout; None if the folder does not hold it.

    A split that is here already is kept unless `replace`. Nothing is put in place if a number of
    rows is not the paper's, unless `any_count`. Raises BenchmarkError for a file that is wrong.
    """
    brought = read_reference(folder, benchmark)
    return None if brought is None else put(benchmark, lambda _: brought, any_count, replace)


def put(benchmark: Benchmark, bring: Bring, any_count: bool = False, replace: bool = False) -> ImportReport:
    """Put what `bring` gives in place, all of it or nothing, and report on every split."""
    with store.locked(benchmark):
        before = _here(benchmark, forgiving=replace)
        brought = bring({} if replace else {split: held.rows for split, held in before.items()})
        together = _together(before, brought, replace)
        held = _without_stale(together)
        test = held["test"].rows if "test" in held else []
        findings = {s: look_at(h.rows, () if s == "test" else test) for s, h in held.items()}
        stale = together.keys() - held.keys()
        reports = tuple(_report(benchmark, s, held.get(s), findings.get(s), s in stale) for s in SPLITS)
        fresh = [report for report in reports if report.state == "imported"]
        if not any_count and not all(report.counts_agree for report in fresh):
            return ImportReport(benchmark.name, brought.source, tuple(map(_refused, reports)))
        if fresh or held.keys() != before.keys():
            manifest = _manifest(benchmark, held, findings)
            store.replace(benchmark, manifest, {split: one.content for split, one in held.items()})
        return ImportReport(benchmark.name, brought.source, reports)


def _here(benchmark: Benchmark, forgiving: bool) -> dict[Split, _Held]:
    """What is imported already; where damage is `forgiving`, without what is damaged."""
    held: dict[Split, _Held] = {}
    try:
        manifest = store.read_manifest(benchmark)
    except BenchmarkError:
        if not forgiving:
            raise
        return held
    for split, record in manifest.splits.items() if manifest else ():
        try:
            content = store.read_bytes(benchmark, split)
        except BenchmarkError:
            if not forgiving:
                raise
            continue
        rows = parse_rows(content, str(store.folder(benchmark) / f"{split}.jsonl"), benchmark)
        held[split] = _Held("kept", rows, content, record.source, record.note, record.apart_from)
    return held


def _together(before: Mapping[Split, _Held], brought: Brought, renew: bool) -> dict[Split, _Held]:
    held = dict(before)
    for split, rows in brought.rows.items():
        content = store.content_of(rows)
        here = before.get(split)
        if here is not None and here.content == content:
            held[split] = replace(here, state="unchanged")
        elif here is not None and not renew:
            remark = f"differs from {brought.source}; --replace takes that instead"
            held[split] = replace(here, remark=remark)
        else:
            note, apart_from = brought.notes.get(split), brought.apart_from.get(split)
            held[split] = _Held("imported", rows, content, brought.source, note, apart_from)
    return held


def _without_stale(held: Mapping[Split, _Held]) -> dict[Split, _Held]:
    """Without kept splits that were chosen apart from rows that are no longer the ones here."""

    def stale(one: _Held) -> bool:
        apart_from = (one.apart_from or {}).items()
        return one.state == "kept" and any(s not in held or held[s].sha256 != sha for s, sha in apart_from)

    return {split: one for split, one in held.items() if not stale(one)}


def _report(
    benchmark: Benchmark, split: Split, held: _Held | None, findings: Findings | None, stale: bool
) -> SplitReport:
    expected = benchmark.rows[split]
    if held is None:
        was = "removed, since it was made beside other splits than those now here; " if stale else ""
        return SplitReport(split, "missing", expected, remark=was + store.how_to_bring(benchmark, split))
    return SplitReport(split, held.state, expected, findings, held.remark or held.note)


def _refused(report: SplitReport) -> SplitReport:
    return replace(report, state="refused") if report.state == "imported" else report


def _manifest(
    benchmark: Benchmark, held: Mapping[Split, _Held], findings: Mapping[Split, Findings]
) -> Manifest:
    records = {
        split: SplitRecord(
            rows=len(held[split].rows),
            size=len(held[split].content),
            sha256=held[split].sha256,
            source=held[split].source,
            note=held[split].note,
            apart_from=dict(held[split].apart_from or {}),
            findings=findings[split],
        )
        for split in SPLITS
        if split in held
    }
    missing = {split: store.how_to_bring(benchmark, split) for split in SPLITS if split not in held}
    when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    versions = {"datacreate": metadata.version("datacreate")}
    return Manifest(name=benchmark.name, splits=records, missing=missing, when=when, versions=versions)
