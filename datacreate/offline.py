"""Switches off downloads and telemetry of the libraries that datacreate uses.

Libraries read these variables when they are imported, and child processes inherit them. The command line calls
`go_offline` before it imports any library; servers get the variables from the process that starts them. From
Python, datacreate reads local files only, and leaves the environment as it is. Commands that download
(`models pull`, `benchmarks import`) do so in a child process, which calls `lift`.
"""

from __future__ import annotations

import os

NO_DOWNLOADS = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""Keeps the libraries of the Hub from asking it for files."""

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Keeps libraries from reporting their use; never lifted."""

OURS = "DATACREATE_OFFLINE"
"""The variable that lists which of NO_DOWNLOADS datacreate set, and not the user."""

_TRUE = {"1", "on", "yes", "true"}


def go_offline() -> None:
    """Set all of them for this process and its children; a second call changes nothing."""
    ours = {name for name in os.environ.get(OURS, "").split(",") if name in os.environ}
    ours |= {name for name in NO_DOWNLOADS if os.environ.get(name, "").lower() not in _TRUE}
    os.environ.update(NO_DOWNLOADS | NO_TELEMETRY)
    os.environ[OURS] = ",".join(sorted(ours))


def lift() -> None:
    """Allow downloads in this process; telemetry stays off. Call it before importing any library."""
    for name in NO_DOWNLOADS:
        os.environ.pop(name, None)


def user_forbids() -> str | None:
    """The variable by which the user, and not datacreate, forbids downloads; None if there is none."""
    ours = os.environ.get(OURS, "").split(",")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # huggingface_hub reads both
        if os.environ.get(name, "").lower() in _TRUE and name not in ours:
            return name
    return None
