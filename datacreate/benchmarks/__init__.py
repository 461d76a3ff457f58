"""The ten benchmarks: test sets, and the human training sets beside them."""

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
