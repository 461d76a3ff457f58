"""The Hub at a revision, through `huggingface_hub` in a process of its own.

A process of its own because the library reads its environment once, at import: only there may it
go online (`offline.lift`), and the caller, which stays offline, must not be changed. One short
question to the Hub comes first, so that a machine without a network hears so in seconds, and gives
the commit that a branch stands for.

    python -m datacreate.checkpoints.sources.hub REPO REVISION FOLDER PATTERN...

prints the commit; exits with 1 and one line on stderr when the Hub cannot serve.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from datacreate.checkpoints.folder import CODE, KEPT
from datacreate.checkpoints.places import bytes_below, raise_if_disk_full
from datacreate.checkpoints.preset import HubSource
from datacreate.checkpoints.progress import Progress
from datacreate.checkpoints.sources.arrival import Arrival, SourceFailed
from datacreate.offline import lift

_PROBE_SECONDS = 5.0
# Second copies of the same weights in other layouts.
_SKIPPED = ["original/*", "metal/*", "onnx/*", "openvino/*", "consolidated*"]
_LOOK_SECONDS = 0.5


def fetch(source: HubSource, work: Path, size_bytes: int, progress: Progress, code: bool = False) -> Arrival:
    """Download into `work/arrived`; the library resumes files that are incomplete."""
    arrived = work / "arrived"
    arrived.mkdir(exist_ok=True)
    wanted = [source.file] if source.file else [*KEPT, *([CODE] if code else [])]
    command = [sys.executable, "-m", __name__, source.hub, source.revision, str(arrived), *wanted]
    child = subprocess.Popen(
        command,
        env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while True:
            try:
                out, words = child.communicate(timeout=_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                progress("downloading", min(bytes_below(arrived), size_bytes), size_bytes, "B")
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    if child.returncode != 0:
        raise_if_disk_full(words)
        lines = [line for line in words.splitlines() if line.strip()]
        raise SourceFailed(lines[-1].strip() if lines else f"the download ended with code {child.returncode}")
    progress("downloading", size_bytes, size_bytes, "B")
    # The library's own bookkeeping; it is worth something only while a download is incomplete.
    shutil.rmtree(arrived / ".cache", ignore_errors=True)
    return Arrival(arrived, revision=out.strip())


def main(repo: str, revision: str, folder: str, *wanted: str) -> int:
    """The child process."""
    lift()
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        commit = HfApi().model_info(repo, revision=revision, timeout=_PROBE_SECONDS).sha
        snapshot_download(
            repo,
            revision=commit,
            local_dir=folder,
            allow_patterns=list(wanted),
            ignore_patterns=_SKIPPED,
            max_workers=4,
        )
    except GatedRepoError:
        reason = f"{repo} is gated: accept its license on its page and set HF_TOKEN"
    except RepositoryNotFoundError:
        reason = f"no repository {repo}, or no right to see it: set HF_TOKEN"
    except RevisionNotFoundError:
        reason = f"{repo} has no revision {revision}"
    # Whatever else the network does (the library lets several families of errors through) means
    # the same to the caller: this source cannot serve now.
    except Exception as error:  # noqa: BLE001
        reason = f"out of reach ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    else:
        print(commit)
        return 0
    print(reason, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
