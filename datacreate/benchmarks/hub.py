"""Fetch a copy of a data set from the Hub: the only module here that uses a network.

In a process of its own, which alone may go online: the library reads its environment once, at import,
and the caller stays offline.

    python -m datacreate.benchmarks.hub REPO REVISION FOLDER PATTERN...

prints the commit; exits with 1 and one line on stderr when the Hub cannot serve.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

from datacreate.benchmarks.registry import Benchmark, HubSource
from datacreate.benchmarks.snapshot import READERS
from datacreate.errors import BenchmarkError
from datacreate.files import storage_error
from datacreate.offline import lift, user_forbids

_PROBE_SECONDS = 10.0


def fetch(benchmark: Benchmark, hub: HubSource, folder: Path) -> str:
    """Download the data files into the folder; returns the commit they are of.

    Raises BenchmarkError, saying how to bring a copy by hand, where the Hub is out of reach.
    """
    if forbidden := user_forbids():
        raise _out_of_reach(benchmark, hub, f"{forbidden} is set")
    within = f"*{hub.config}*" if hub.config else "*"
    patterns = [f"{within}{suffix}" for suffix in READERS]
    done = subprocess.run(
        [sys.executable, "-m", __name__, hub.id, hub.revision, str(folder), *patterns],
        env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return done.stdout.strip()
    number, _, said = (done.stderr.strip().splitlines() or ["0 it ended without a word"])[-1].partition(" ")
    if number.isdigit() and int(number) in errno.errorcode:
        raise storage_error(folder, OSError(int(number), os.strerror(int(number))))
    raise _out_of_reach(benchmark, hub, said or number)


def main(repo: str, revision: str, folder: str, *patterns: str) -> int:
    """The child process; its last line is the error's number (0: not the disk's) and its words."""
    lift()
    from huggingface_hub import HfApi, snapshot_download

    try:
        commit = HfApi().dataset_info(repo, revision=revision, timeout=_PROBE_SECONDS).sha
        snapshot_download(
            repo, repo_type="dataset", revision=commit, local_dir=folder, allow_patterns=list(patterns)
        )
    # Whatever else the network does (the library lets several families of errors through) means the same.
    except Exception as error:  # noqa: BLE001
        of_disk = isinstance(error, OSError) and error.errno is not None and error.filename is not None
        number = error.errno if isinstance(error, OSError) and of_disk else 0
        said = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{number} {said}", file=sys.stderr)
        return 1
    print(commit)
    return 0


def _out_of_reach(benchmark: Benchmark, hub: HubSource, why: str) -> BenchmarkError:
    said = " ".join(why.split())[:160]
    revision = f" --revision {hub.revision}" if hub.revision != "main" else ""
    return BenchmarkError(
        f"cannot fetch {hub.id} from the Hub ({said}); where there is a network run `hf download {hub.id} "
        f"--repo-type dataset{revision} --local-dir DIR`, copy DIR to this machine, and run `datacreate "
        f"benchmarks import {benchmark.name} --from DIR`"
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
