"""Downloads a data set from the Hugging Face Hub into its cache, in a process of its own.

`huggingface_hub` reads its environment once, at import. So only this process goes online; its parent stays
offline. It prints the folder, whose name is the commit; or the reason, and exits with 1.

    python -m datacreate.benchmarks.hub REPO REVISION PATTERN...
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

from datacreate.benchmarks.registry import Benchmark, HubSource
from datacreate.errors import RESUMABLE, BenchmarkError, StorageError
from datacreate.offline import lift, user_forbids

PROBE_SECONDS = 5


def download(benchmark: Benchmark, hub: HubSource) -> Path:
    """The folder with the data files of a benchmark's data set.

    Raises StorageError if the disk is full, BenchmarkError if the Hub cannot serve, saying how to import a copy.
    """
    if variable := user_forbids():
        raise _failed(benchmark, hub, f"{variable} is set")
    within = f"*{hub.config}*" if hub.config else "*"
    command = [sys.executable, "-m", __name__, hub.id, hub.revision]
    command += [within + suffix for suffix in (".parquet", ".jsonl", ".json", ".csv")]
    bars = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    child = subprocess.run(
        command,
        env=os.environ | bars,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    output = (child.stdout.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
    if child.returncode == RESUMABLE:
        raise StorageError(output)
    if child.returncode:
        raise _failed(benchmark, hub, output)
    return Path(output)


def _failed(benchmark: Benchmark, hub: HubSource, reason: str) -> BenchmarkError:
    revision = f" --revision {hub.revision}" if hub.revision != "main" else ""
    return BenchmarkError(
        f"cannot download {hub.id} ({reason[:160]}); on a machine with a network run `hf download {hub.id} "
        f"--repo-type dataset{revision} --local-dir DIR`, copy DIR here, and run `datacreate benchmarks import "
        f"{benchmark.name} --from DIR`"
    )


def main(repo: str, revision: str, *patterns: str) -> int:
    """The child process."""
    lift()
    from huggingface_hub import HfApi, constants, snapshot_download

    try:
        commit = HfApi().dataset_info(repo, revision=revision, timeout=PROBE_SECONDS).sha
        print(snapshot_download(repo, repo_type="dataset", revision=commit, allow_patterns=list(patterns)))
    except Exception as error:  # noqa: BLE001 - several families of network errors mean the same
        said = " ".join(f"{type(error).__name__}: {error}".split())
        if isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EROFS,
            errno.EACCES,
        ):
            print(f"cannot write {constants.HF_HUB_CACHE}: {said[:160]}; free space or set HF_HUB_CACHE")
            return RESUMABLE
        print(said)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
