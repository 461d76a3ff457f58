"""No downloads and no telemetry: switched off before any library is imported.

The libraries read these variables once, when they are imported, and processes inherit them. So
`datacreate/__init__.py` calls `go_offline` before all else, whoever imports datacreate: the command, the
engine's process, a process of a training, somebody's notebook. Commands that are for fetching
(`models pull`, `benchmarks import --from hub`) do it in a process of their own, which alone calls
`lift`.
"""

from __future__ import annotations

import os

NO_DOWNLOADS = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""What keeps the Hub's libraries from asking it for files."""

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""What keeps libraries from reporting that they are used; never lifted."""

OURS = "DATACREATE_OFFLINE"
"""Names which of NO_DOWNLOADS datacreate set, so that the user's own can be told from them."""

_TRUE = {"1", "on", "yes", "true"}


def go_offline() -> None:
    """Set all of them for this process and those it starts; a second call changes nothing."""
    ours = {name for name in os.environ.get(OURS, "").split(",") if name in os.environ}
    ours |= {name for name in NO_DOWNLOADS if os.environ.get(name, "").lower() not in _TRUE}
    os.environ.update(NO_DOWNLOADS | NO_TELEMETRY)
    os.environ[OURS] = ",".join(sorted(ours))


def lift() -> None:
    """Let this process fetch; telemetry stays off. To be called before any library is imported."""
    for name in NO_DOWNLOADS:
        os.environ.pop(name, None)


def user_forbids() -> str | None:
    """The variable by which the user, and not datacreate, keeps the Hub out; None if there is none."""
    ours = os.environ.get(OURS, "").split(",")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # huggingface_hub heeds either
        if os.environ.get(name, "").lower() in _TRUE and name not in ours:
            return name
    return None
