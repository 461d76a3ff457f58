"""The ten benchmarks: test sets, and the human training sets beside them.

registry.py   data/benchmarks.yaml, typed
rows.py       one row: normalized text and label; findings about a split
importing.py  from files of the paper's repository, from the Hub, or from a copy of a Hub data set
hub.py        download from the Hub, in a process of its own
store.py      imported benchmarks in the data directory; the formatting example
"""

from datacreate.benchmarks.importing import ImportReport, import_benchmark, import_folder
from datacreate.benchmarks.registry import SPLITS, Benchmark, find_benchmark, load_registry
from datacreate.benchmarks.rows import Findings
from datacreate.benchmarks.store import (
    digest,
    folder_of,
    formatting_example,
    has_split,
    read_manifest,
    read_split,
    state,
    verify,
)

__all__ = [
    "SPLITS",
    "Benchmark",
    "Findings",
    "ImportReport",
    "digest",
    "find_benchmark",
    "folder_of",
    "formatting_example",
    "has_split",
    "import_benchmark",
    "import_folder",
    "load_registry",
    "read_manifest",
    "read_split",
    "state",
    "verify",
]
