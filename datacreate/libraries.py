"""Keeps the libraries that datacreate uses offline and quiet: no downloads, no telemetry, no progress bars.

Libraries read the environment when they are imported, and child processes inherit it. The command line calls
`go_offline` before it imports any library; servers get the variables from the process that starts them. From
Python, datacreate reads local files only, and leaves the environment as it is. Commands that download
(`models pull`, `benchmarks import`) do so in a child process with `online_environment`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

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

OURS = "DATACREATE_OFFLINE"
"""The variable that lists which of NO_DOWNLOADS datacreate set, and not the user."""

_TRUE = {"1", "on", "yes", "true"}


def go_offline() -> None:
    """Set all of them for this process and its children; a second call changes nothing."""
    ours = {name for name in os.environ.get(OURS, "").split(",") if name in os.environ}
    ours |= {name for name in NO_DOWNLOADS if os.environ.get(name, "").lower() not in _TRUE}
    os.environ.update(NO_DOWNLOADS | NO_TELEMETRY)
    os.environ[OURS] = ",".join(sorted(ours))


def online_environment() -> dict[str, str]:
    """The environment of a child process that downloads; telemetry stays off."""
    return {name: value for name, value in os.environ.items() if name not in NO_DOWNLOADS}


def user_forbids() -> str | None:
    """The variable by which the user, and not datacreate, forbids downloads; None if there is none."""
    ours = os.environ.get(OURS, "").split(",")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # huggingface_hub reads both
        if os.environ.get(name, "").lower() in _TRUE and name not in ours:
            return name
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress bars and log lines of transformers and datasets off the screen."""
    import datasets
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
        datasets.enable_progress_bars()
