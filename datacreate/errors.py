"""All errors that a user can see, as one tree.

    DatacreateError               exit code 1: failed; the message says what, where and what to do
    ├── UsageError                exit code 2: the command line or the configuration is wrong
    │   ├── ExampleError          the formatting example cannot be used
    │   ├── FormatError           a task format is wrong, or contradicts its example
    │   └── SweepPlanError        the plan of a sweep is wrong, or differs from the one in its folder
    ├── CheckpointError           a checkpoint or encoder is missing, damaged or too large
    │   └── UnknownModel          exit code 2: no preset, Hub id, folder or file
    ├── BenchmarkError            a benchmark is not imported, or damaged
    │   └── UnknownBenchmark      exit code 2: not in the registry
    ├── EngineError               the engine did not start, died, or does not enforce the grammar
    │   ├── PromptTooLong         a prompt and its answer do not fit the model's context
    │   └── ServersUnavailable    exit code 75: no server is reachable; run again later
    ├── RunError                  a run directory cannot be used
    │   ├── RunMismatch           it was made with other settings
    │   ├── RunLocked             another process is writing it
    │   └── LogDamaged            its log is damaged before the last line
    ├── InvalidRows               most rows of a file are not valid
    ├── TrainingError             an encoder cannot be trained or measured on these rows
    ├── NoProgress                many requests in a row gave no accepted example
    ├── StorageError              exit code 75: disk full or read-only; fix it and run again
    │   └── UnwritablePath        exit code 1: nothing can be written there; another path is needed
    └── Stopped                   exit code 75: stopped by a signal; run again to resume
        └── LockLost              another process has taken over the folder

A message is one line: what is wrong, where, and what to do. Exit code 1: the command failed. Exit code 2: an option,
name, value or input file is wrong. Exit code 75 is `EX_TEMPFAIL` of sysexits.h: the same command resumes.
"""

from __future__ import annotations

RESUMABLE = 75


class DatacreateError(Exception):
    """Base of all errors; the command line prints the message."""

    exit_code = 1


class UsageError(DatacreateError):
    exit_code = 2


class ExampleError(UsageError): ...


class FormatError(UsageError): ...


class SweepPlanError(UsageError): ...


class CheckpointError(DatacreateError): ...


class UnknownModel(CheckpointError):
    exit_code = 2


class BenchmarkError(DatacreateError): ...


class UnknownBenchmark(BenchmarkError):
    exit_code = 2


class EngineError(DatacreateError): ...


class PromptTooLong(EngineError): ...


class ServersUnavailable(EngineError):
    exit_code = RESUMABLE


class RunError(DatacreateError): ...


class RunMismatch(RunError): ...


class RunLocked(RunError): ...


class LogDamaged(RunError): ...


class InvalidRows(DatacreateError): ...


class TrainingError(DatacreateError): ...


class NoProgress(DatacreateError): ...


class StorageError(DatacreateError):
    exit_code = RESUMABLE


class UnwritablePath(StorageError):
    exit_code = 1


class Stopped(DatacreateError):
    exit_code = RESUMABLE


class LockLost(Stopped): ...
