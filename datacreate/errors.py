"""All errors that a user can see. A message is one line: what is wrong, where, and what to do.

Exit code 1: the command failed. Exit code 2: an option, name, path, value or input file is wrong. Exit code 75 is
`EX_TEMPFAIL` of sysexits.h: the same command resumes.
"""

from __future__ import annotations

RESUMABLE = 75

OTHER_WRITER = 76
"""The exit code of `RunLocked` and `LockLost` in a step of `sweep`, which sets the variable SWEEP_STEP; else 75."""

SWEEP_STEP = "DATACREATE_SWEEP_STEP"


class DatacreateError(Exception):
    """Base of all errors; the command line prints the message."""

    exit_code = 1


class UsageError(DatacreateError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class ExampleError(UsageError):
    """The formatting example cannot be used."""


class FormatError(UsageError):
    """A task format is wrong, or contradicts its example."""


class CheckpointError(DatacreateError):
    """A checkpoint is not downloaded, damaged or too large."""


class CheckpointDamaged(CheckpointError):
    """A file of it is empty, cut or missing; the message ends with the advice to copy or download it again."""


class NotDownloaded(CheckpointError):
    """A preset or Hub id without its files on this machine."""


class UnknownModel(CheckpointError):
    """No such preset, Hub id, folder or file, or one of another kind."""

    exit_code = 2


class BenchmarkError(DatacreateError):
    """A benchmark is not imported, or damaged."""


class UnknownBenchmark(BenchmarkError):
    """Not in the registry."""

    exit_code = 2


class EngineError(DatacreateError):
    """The engine did not start, died, or does not enforce schemas."""


class PromptTooLong(EngineError):
    """A prompt and its answer do not fit the context length."""


class ServersUnavailable(EngineError):
    """No server is reachable; run again later."""

    exit_code = RESUMABLE


class RunError(DatacreateError):
    """A run directory cannot be used."""


class RunMismatch(RunError):
    """It was made with other settings."""


class RunLocked(RunError):
    """Another process is writing it; run again when it has finished."""

    exit_code = RESUMABLE


class LogDamaged(RunError):
    """Its log is damaged before the last line."""


class TrainingError(DatacreateError):
    """A model or an encoder cannot be used, or a training failed."""


class NoProgress(DatacreateError):
    """Many requests in a row gave no accepted example."""


class DecisionRefused(DatacreateError):
    """A decision of a reviewer that cannot be made."""


class StorageError(DatacreateError):
    """The disk is full or read-only; fix it and run again."""

    exit_code = RESUMABLE


class UnwritablePath(StorageError):
    """Nothing can be written there; another path is needed."""

    exit_code = 2


class Stopped(DatacreateError):
    """Stopped by a signal; run again to resume."""

    exit_code = RESUMABLE


class LockLost(Stopped):
    """Another process has taken over the folder."""
