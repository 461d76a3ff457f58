"""The ten benchmarks: test sets, and their human training sets.

registry.py   data/benchmarks.yaml: what each benchmark is
importing.py  downloads or reads the rows of a benchmark, and splits them
store.py      the imported splits; formatting examples from them
"""

from datacreate.benchmarks.importing import ImportReport, find_benchmarks_in, import_benchmark
from datacreate.benchmarks.registry import SPLITS, Benchmark, SplitStatistics, find_benchmark, load_registry
from datacreate.benchmarks.store import (
    benchmark_folder,
    formatting_examples,
    has_split,
    import_state,
    read_manifest,
    read_split,
    split_sha256,
)

__all__ = [
    "SPLITS",
    "Benchmark",
    "ImportReport",
    "SplitStatistics",
    "benchmark_folder",
    "find_benchmark",
    "find_benchmarks_in",
    "formatting_examples",
    "has_split",
    "import_benchmark",
    "import_state",
    "load_registry",
    "read_manifest",
    "read_split",
    "split_sha256",
]  # fmt: skip
