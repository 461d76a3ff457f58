"""The process that downloads from the Hugging Face Hub into its cache.

`huggingface_hub` reads its environment once, at import. So only this process goes online; its parent stays offline.
On failure it prints the reason and exits with 1, or with 75 if the disk is full or read-only.

    python -m datacreate.checkpoints.hub REPO REVISION PATTERN FORCE
"""

from __future__ import annotations

import errno
import signal
import sys
from pathlib import Path
from typing import Any

from datacreate.checkpoints.folder import KEPT, SKIPPED
from datacreate.checkpoints.pull import PROBE_SECONDS
from datacreate.errors import RESUMABLE

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def main(repo: str, revision: str, pattern: str, force: str) -> int:
    """Download a repository, print a problem, and return the exit code.

    `pattern` selects files ("": those of a checkpoint); `force` is "force", to download all again, or "".
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        _download(repo, revision, pattern, force == "force")
        return 0
    except RepositoryNotFoundError:  # also for gated ones
        print("no such repository, or no access: accept its license on the Hub's page, and set HF_TOKEN")
    # The library lets several families of network errors through; each means that the Hub cannot serve now.
    except Exception as error:  # noqa: BLE001
        message = " ".join(str(error).split())[:160]
        is_disk_error = isinstance(error, OSError) and error.errno in _DISK_ERRORS
        if is_disk_error or "os error 28" in message:  # hf_xet raises a RuntimeError
            remedy = "free space or set HF_HUB_CACHE; run again"
            print(f"cannot write {constants.HF_HUB_CACHE}: {message}; {remedy}")
            return RESUMABLE
        if not isinstance(error, ValueError):
            message = f"not reachable ({type(error).__name__}: {message})"
        print(message)
    return 1


def _download(repo: str, revision: str, pattern: str, force: bool) -> None:
    """Download what is missing, and compare it with the Hub's hashes. ValueError if a file differs."""
    from huggingface_hub import HfApi, snapshot_download

    signal.alarm(PROBE_SECONDS)  # ends this process: looking up a name may take longer than any timeout
    info = HfApi().model_info(repo, revision=revision, timeout=PROBE_SECONDS)
    signal.alarm(0)
    names = [sibling.rfilename for sibling in info.siblings or ()]
    if not pattern and not any(name.endswith(".safetensors") for name in names):
        raise ValueError(f"no safetensors; for a GGUF, `hf download {repo} FILE` and --model with its path")
    files: dict[str, Any] = {"allow_patterns": pattern or [*KEPT], "ignore_patterns": [*SKIPPED]}
    folder = Path(snapshot_download(repo, revision=revision, **files, force_download=force))
    mismatches = HfApi().verify_repo_checksums(repo, revision=folder.name).mismatches
    for path in (folder / mismatch["path"] for mismatch in mismatches):
        if path.resolve().is_relative_to(folder.parents[1].resolve()):
            path.resolve().unlink()  # the content, if the link in the cache leads into the cache
        path.unlink(missing_ok=True)
    if mismatches:
        raise ValueError(f"{mismatches[0]['path']} has another hash than on the Hub; removed, run again")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
