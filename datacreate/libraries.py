"""Settings of the libraries that datacreate uses: offline, quiet, for training; and their errors in one line.

Libraries read the environment when they are imported, and child processes inherit it. The command line sets
NO_TELEMETRY, and NO_DOWNLOADS for every command that does not download, before it imports any library; servers get
both from the process that starts them. From Python, datacreate reads only local files, and does not change the
environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datacreate.errors import StorageError, TrainingError
from datacreate.files import storage_error

NO_DOWNLOADS = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""Keeps the libraries of the Hub from asking it for files."""

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Keeps libraries from reporting their use; always on."""

_OUT_OF_MEMORY = ("not enough memory", "out of memory", "can't allocate memory")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress bars and log lines of transformers and datasets off the screen."""
    import datasets
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
        datasets.enable_progress_bars()


def configure_process() -> None:
    """Let idle OpenMP threads sleep while training, which is faster beside other busy processes.

    Call it before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def training_errors(options_to_lower: str, folder: Path | None = None) -> Iterator[None]:
    """Turn out-of-memory errors into a TrainingError, which names `options_to_lower`, and failed writes into a
    StorageError, which names `folder`."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise storage_error(folder or Path(error.filename or "."), error) from None
    except (MemoryError, RuntimeError, SafetensorError) as error:
        text = str(error)
        if isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY):
            reason = (text.splitlines() or ["no memory left"])[0][:160]
            raise TrainingError(
                f"out of memory ({reason}); lower {options_to_lower}, or choose a smaller encoder"
            ) from None
        # torch (inline_container) and safetensors (os error) hide the OSError of a failed write.
        if "os error" in text or ("inline_container" in text and "Reader" not in text):
            raise StorageError(
                f"{folder}: the disk is full or not writable; fix that and run the command again"
            ) from None
        raise
