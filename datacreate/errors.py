"""All errors that a user can see, as one tree.

    DatacreateError               exit code 1: failed; the message says what, where and what to do
    ├── UsageError                exit code 2: the command line or the configuration is wrong
    │   ├── ExampleError          the formatting example cannot be used
    │   ├── FormatError           a task format is wrong, or contradicts its example
    │   └── PlanError             the plan of a sweep is wrong, or differs from the one in its folder
    ├── CheckpointError           a checkpoint or encoder is unknown, missing, damaged or too large
    ├── BenchmarkError            a benchmark is unknown, not imported, or damaged
    ├── EngineError               the engine did not start, died, or does not enforce the grammar
    │   ├── PromptTooLong         a prompt and its answer do not fit the model's context
    │   └── ServersUnavailable    exit code 75: no server is reachable; run again later
    ├── RunError                  a run directory cannot be used
    │   ├── RunMismatch           it was made with other settings
    │   ├── RunLocked             another process is writing it
    │   └── LogDamaged            its log is damaged before the last line
    ├── TrainingError             an encoder cannot be trained or measured on these rows
    ├── NoProgress                many requests in a row gave no accepted example
    ├── StorageError              exit code 75: disk full or read-only; fix it and run again
    └── Stopped                   exit code 75: stopped by a signal; run again to resume
        └── LockLost              another process has taken over the folder

A message is one line: what is wrong, where, and what to do. Exit code 75 is `EX_TEMPFAIL` of sysexits.h: the same
command resumes.
"""

from __future__ import annotations

from collections.abc import Iterable

RESUMABLE = 75


class DatacreateError(Exception):
    """Base of all errors; the command line prints the message."""

    exit_code = 1


class UsageError(DatacreateError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class ExampleError(UsageError):
    """The formatting example is missing, not a JSON object, or contradictory."""


class FormatError(UsageError):
    """A task format is invalid, contradicts its example, or uses unsupported keywords."""


class PlanError(UsageError):
    """The plan of a sweep is wrong, or differs from the one in its folder."""


class CheckpointError(DatacreateError):
    """A checkpoint or encoder is unknown, missing, damaged or too large."""


class BenchmarkError(DatacreateError):
    """A benchmark is unknown, not imported, or damaged."""


class EngineError(DatacreateError):
    """The engine did not start, died, or does not enforce the grammar."""


class PromptTooLong(EngineError):
    """A prompt and its completion exceed the model's context."""


class ServersUnavailable(EngineError):
    """No server is reachable; committed examples are kept."""

    exit_code = RESUMABLE


class RunError(DatacreateError):
    """A run directory cannot be used."""


class RunMismatch(RunError):
    """The run directory was made with other settings."""


class RunLocked(RunError):
    """Another process is writing the run directory."""


class LogDamaged(RunError):
    """The log of a run is damaged before its last line."""


class TrainingError(DatacreateError):
    """An encoder cannot be trained or evaluated on these rows or on this machine."""


class NoProgress(DatacreateError):
    """Many requests in a row gave no accepted example."""


class StorageError(DatacreateError):
    """The disk is full or read-only; committed examples are kept."""

    exit_code = RESUMABLE


class Stopped(DatacreateError):
    """Stopped by a signal; committed examples are kept."""

    exit_code = RESUMABLE


class LockLost(Stopped):
    """Another process has taken over the folder; this one must not write to it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean a, b?)`, or an empty text if no known name is similar."""
    from difflib import get_close_matches  # slow to import

    similar = get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    return f" (did you mean {', '.join(similar)}?)" if similar else ""
