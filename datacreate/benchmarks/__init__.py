"""Benchmarks: the test sets that a created training set is measured on.

The registry (`data/benchmarks.yaml`) says what there is and what must be counted; an import takes
a set from the reference's files or from the Hub, normalises it, reports what is odd about it, and
puts it into the home, where `read_split` finds it. Nothing here is heavy, and nothing fetches
but `datacreate benchmarks import` without --from.

    benchmarks/
      registry.py    what the registry says, typed; find one by name
      rows.py        one row: harmless text, one spelling of the label
      findings.py    label shares, constant prediction, repeats, and what train shares with test
      reference.py   the layout of the reference's repository
      snapshot.py    a Hub data set's files on disk, its columns and answers mapped
      dealing.py     the Hub's splits -> ours, apart from the rows that are imported already
      hub.py         fetch a snapshot
      sources.py     the three ways in
      importing.py   put it in place as a whole, and report
      manifest.py    what was put in place: rows, hashes, findings
      store.py       the home's folder of a benchmark: read, replace
      verify.py      every byte against the manifest, the rows against the registry
      drawing.py     the formatting example by seed
"""

from __future__ import annotations

from datacreate.benchmarks.drawing import formatting_example
from datacreate.benchmarks.findings import Findings
from datacreate.benchmarks.importing import ImportReport, SplitReport, import_reference
from datacreate.benchmarks.registry import SPLITS, Benchmark, find_benchmark, load_registry
from datacreate.benchmarks.sources import ImportOptions, from_folder, from_hub, from_reference, from_snapshot
from datacreate.benchmarks.store import digest, has_split, how_to_bring, read_manifest, read_split
from datacreate.benchmarks.verify import VerifyReport, state, verify

__all__ = [
    "SPLITS",
    "Benchmark",
    "Findings",
    "ImportOptions",
    "ImportReport",
    "SplitReport",
    "VerifyReport",
    "digest",
    "find_benchmark",
    "formatting_example",
    "from_folder",
    "from_hub",
    "from_reference",
    "from_snapshot",
    "has_split",
    "how_to_bring",
    "import_reference",
    "load_registry",
    "read_manifest",
    "read_split",
    "state",
    "verify",
]
