"""Every error a user can meet, as one tree.

    DatacreateError               exit code 1: failed, one line says what, where and what to do
    ├── UsageError                exit code 2: the command line or the configuration is wrong
    │   ├── ExampleError          the formatting example cannot be used
    │   ├── FormatError           a task format is wrong, or contradicts its example
    │   ├── PlanError             a sweep's plan is wrong, or not the one its folder was made with
    │   └── SiteError             a cluster's site settings are wrong, or not there
    ├── CheckpointError           a checkpoint or encoder is unknown, absent, damaged or too large
    ├── BenchmarkError            a benchmark is unknown, not imported, or not what it should be
    ├── EngineError               the engine did not start, died, or ignores the grammar
    │   ├── PromptTooLong         a prompt and its answer do not fit the model's context
    │   └── ServersGone           exit code 75: no server answers; run again when one does
    ├── RunError                  a run directory cannot be used
    │   ├── RunMismatch           it was made with other settings
    │   ├── RunLocked             another process is writing it
    │   └── LogDamaged            its log is damaged before the last line
    ├── TrainingError             an encoder cannot be trained or measured on these rows
    ├── NoProgress                the model writes nothing that can be accepted
    ├── StorageError              exit code 75: disk full or read-only; fix it and run again
    └── Stopped                   exit code 75: stopped by a signal; run again to go on
        └── LockLost              another process has taken over what this one was writing

Messages are one line: what is wrong, where, and what to do about it. Exit code 75 is
`EX_TEMPFAIL` of sysexits.h: the same command, run again, goes on.
"""

from __future__ import annotations

RESUMABLE = 75


class DatacreateError(Exception):
    """Base of all errors that are the user's to read; the CLI prints it in one line."""

    exit_code = 1


class UsageError(DatacreateError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class ExampleError(UsageError):
    """The formatting example is missing, is not a JSON object, or contradicts itself."""


class FormatError(UsageError):
    """A task format is wrong, contradicts its example, or asks what no grammar can hold."""


class PlanError(UsageError):
    """The plan of a sweep is wrong, or not the one that its folder was made with."""


class SiteError(UsageError):
    """The settings of a cluster's site are missing, wrong, or ask for what SLURM has not."""


class CheckpointError(DatacreateError):
    """A checkpoint or encoder is unknown, absent, damaged or too large."""


class BenchmarkError(DatacreateError):
    """A benchmark is unknown, not imported, damaged, or its files are not what they should be."""


class EngineError(DatacreateError):
    """The engine did not start, died, or does not enforce the grammar."""


class PromptTooLong(EngineError):
    """A prompt and the answer it asks for do not fit the model's context."""


class ServersGone(EngineError):
    """No server answers any more, or none yet; what was committed is kept."""

    exit_code = RESUMABLE


class RunError(DatacreateError):
    """A run directory cannot be used."""


class RunMismatch(RunError):
    """The run directory was made with other settings."""


class RunLocked(RunError):
    """Another process is writing the run directory."""


class LogDamaged(RunError):
    """The run's log is damaged somewhere before its last line."""


class TrainingError(DatacreateError):
    """An encoder cannot be trained, or measured, on these rows or on this machine."""


class NoProgress(DatacreateError):
    """Many requests in a row gave nothing that could be accepted."""


class StorageError(DatacreateError):
    """The disk is full or read-only; what was committed is kept."""

    exit_code = RESUMABLE


class Stopped(DatacreateError):
    """Stopped by a signal; what was committed is kept."""

    exit_code = RESUMABLE


class LockLost(Stopped):
    """Another process has taken the folder over; nothing more may be written to it."""
