"""Whether a model fits into what is free here: the one place where the doctor asks."""

from __future__ import annotations

from datacreate.checkpoints import Checkpoint
from datacreate.doctor.line import Line, refused
from datacreate.engines.loading import KV_CACHE_GIB, LONGEST_CONTEXT, device
from datacreate.engines.memory import check_memory
from datacreate.errors import EngineError


def memory_line(section: str, checkpoint: Checkpoint) -> Line | None:
    """A red line, with the numbers, for a model that is too large; None for one that fits.

    None as well where no engine is installed, which another line says.
    """
    told = checkpoint.engine_settings
    try:
        where = device()
    except EngineError:
        return None
    try:
        check_memory(
            checkpoint.path,
            where,
            told.kv_cache_gib or KV_CACHE_GIB,
            gpus=told.tensor_parallel_size,
            share=told.gpu_memory_utilization,
            tokens=told.max_model_len or LONGEST_CONTEXT[where],
        )
    except EngineError as error:
        return refused(section, f"memory for {checkpoint.name}", error, "datacreate models list", ("create",))
    return None
