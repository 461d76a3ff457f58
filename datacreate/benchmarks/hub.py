"""Fetch a copy of a data set from the Hub: the only module here that uses a network."""

from __future__ import annotations

import os
from pathlib import Path

from datacreate.benchmarks.registry import Benchmark, HubSource
from datacreate.benchmarks.snapshot import READERS
from datacreate.errors import BenchmarkError
from datacreate.runs.log import storage_error

_TRUE = {"1", "on", "yes", "true"}


def fetch(benchmark: Benchmark, hub: HubSource, folder: Path) -> str:
    """Download the data files into the folder; returns the commit they are of.

    Raises BenchmarkError, saying how to bring a copy by hand, where the Hub is out of reach.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE:
        raise _out_of_reach(benchmark, hub, "HF_HUB_OFFLINE is set")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    within = f"*{hub.config}*" if hub.config else "*"
    try:
        commit = HfApi().dataset_info(hub.id, revision=hub.revision, timeout=10.0).sha
        snapshot_download(
            hub.id,
            repo_type="dataset",
            revision=commit,
            local_dir=folder,
            allow_patterns=[f"{within}{suffix}" for suffix in READERS],
        )
    except OSError as error:
        if error.errno is not None and error.filename is not None:
            raise storage_error(folder, error) from None
        raise _out_of_reach(benchmark, hub, str(error)) from None
    # Whatever else the network does (the library lets several families of errors through) means the same.
    except Exception as error:  # noqa: BLE001
        raise _out_of_reach(benchmark, hub, f"{type(error).__name__}: {error}") from None
    return str(commit)


def _out_of_reach(benchmark: Benchmark, hub: HubSource, why: str) -> BenchmarkError:
    said = " ".join(why.split())[:160]
    revision = f" --revision {hub.revision}" if hub.revision != "main" else ""
    return BenchmarkError(
        f"cannot fetch {hub.id} from the Hub ({said}); where there is a network run `hf download {hub.id} "
        f"--repo-type dataset{revision} --local-dir DIR`, bring DIR here, and run `datacreate benchmarks "
        f"import DIR {benchmark.name} --from hub-snapshot`"
    )
