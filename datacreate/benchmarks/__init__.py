"""The ten benchmarks: test sets, and the human training sets beside them."""

from datacreate.benchmarks.importing import ImportReport, benchmarks_in, import_benchmark
from datacreate.benchmarks.registry import SPLITS, Benchmark, Findings, find_benchmark, load_registry
from datacreate.benchmarks.store import (
    benchmark_folder,
    formatting_examples,
    has_split,
    read_manifest,
    read_split,
    split_sha256,
    state,
)

__all__ = [
    "SPLITS", "Benchmark", "Findings", "ImportReport", "benchmark_folder", "benchmarks_in", "find_benchmark",
    "formatting_examples", "has_split", "import_benchmark", "load_registry", "read_manifest", "read_split",
    "split_sha256", "state",
]  # fmt: skip
