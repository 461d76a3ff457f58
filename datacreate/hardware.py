"""What this machine computes with."""

from __future__ import annotations

import os
from functools import cache
from typing import Any


@cache
def device() -> Any:
    """The torch device of this process: its own GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@cache
def has_bf16() -> bool:
    """Whether bfloat16 is computed by the hardware, and not emulated."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
