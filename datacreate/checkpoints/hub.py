"""Downloads models and data sets from the Hugging Face Hub into its cache, in a process of its own.

The threads and the name look-ups of `huggingface_hub` cannot be interrupted. A process can be: a signal ends a download
at once, and a Hub that does not answer is given up in time.

    python -m datacreate.checkpoints.hub REQUEST
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from datacreate.errors import RESUMABLE, StorageError

SAFETENSORS = "*.safetensors"

_PROBE_SECONDS = 5  # in which the Hub must answer

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class SourceFailed(Exception):
    """A source cannot be used; the message says why."""


def download(
    repo: str,
    revision: str,
    include: Sequence[str],
    exclude: Sequence[str] = (),
    *,
    repo_type: Literal["model", "dataset"] = "model",
    required: str = "*",
    force: bool = False,
) -> Path:
    """Download what is missing of a repository, and compare it with the Hub's hashes; returns its folder in the cache.

    `include`, `exclude` and `required` are patterns of file names; `force` downloads all again. Raises SourceFailed if
    the Hub cannot be used, a file differs or none matches `required`, StorageError if the disk is full or read-only.
    """
    repository = {"repo_id": repo, "repo_type": repo_type, "revision": revision}
    files = {"allow_patterns": include, "ignore_patterns": exclude, "force_download": force}
    command = [sys.executable, "-m", __name__, json.dumps([repository, files, required])]
    environment = None if sys.stderr.isatty() else os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    child = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    answer = child.stdout.strip()
    if child.returncode == RESUMABLE:
        raise StorageError(answer)
    if child.returncode == -signal.SIGALRM:
        raise SourceFailed(f"not reachable (no answer within {_PROBE_SECONDS} s)")
    if child.returncode:
        raise SourceFailed(answer or f"exit code {child.returncode}")
    return Path(answer)


def _main(request: str) -> int:
    """Print the folder, or a problem; returns the exit code, 75 if the disk is full or read-only."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    repository, files, required = json.loads(request)
    try:
        if constants.is_offline_mode():
            raise ValueError("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set")
        signal.alarm(_PROBE_SECONDS)  # ends this process: looking up a name may take longer than any timeout
        info = HfApi().repo_info(**repository, timeout=_PROBE_SECONDS)
        signal.alarm(0)
        if not any(fnmatch(file.rfilename, required) for file in info.siblings or ()):
            gguf_advice = f"for a GGUF, `hf download {repository['repo_id']} FILE` and --model with its path"
            advice = gguf_advice if required == SAFETENSORS else "correct `file` in the preset"
            raise ValueError(f"no file is named {required}; {advice}")
        folder = Path(snapshot_download(**repository, **files))
        if folder.is_dir():  # otherwise no file has such a name
            _verify(folder, repository)
        print(folder)
        return 0
    except RepositoryNotFoundError:  # also for gated ones
        print("no such repository, or no access: accept its license on the Hub's page, and set HF_TOKEN")
    # The library lets several families of network errors through; each means that the Hub cannot serve now.
    except Exception as error:  # noqa: BLE001
        message = " ".join(str(error).split())[:160]
        is_disk_error = isinstance(error, OSError) and error.errno in _DISK_ERRORS
        if is_disk_error or "os error 28" in message:  # hf_xet raises a RuntimeError
            print(f"cannot write {constants.HF_HUB_CACHE}: {message}; free space or set HF_HUB_CACHE; run again")
            return RESUMABLE
        print(message if isinstance(error, ValueError) else f"not reachable ({type(error).__name__}: {message})")
    return 1


def _verify(folder: Path, repository: dict[str, str]) -> None:
    """Compare the files in a folder of the cache with the Hub's hashes. ValueError if one differs; it is removed."""
    from huggingface_hub import HfApi

    mismatches = HfApi().verify_repo_checksums(**repository | {"revision": folder.name}).mismatches
    for path in (folder / mismatch["path"] for mismatch in mismatches):
        if path.resolve().is_relative_to(folder.parents[1].resolve()):
            path.resolve().unlink()  # the content, if the link in the cache leads into the cache
        path.unlink(missing_ok=True)
    if mismatches:
        raise ValueError(f"{mismatches[0]['path']} has a different hash from the file on the Hub; removed, run again")


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
