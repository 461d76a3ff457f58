"""Runs a sweep, each step as a child process. Finished steps are skipped.

First the sets of each generator are created, several at once on servers that are started once. Then the GPUs are free:
several cells are trained and evaluated at once, each on GPUs of its own.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from datacreate.engines.factory import LocalModel, local_servers, resolve_checkpoint
from datacreate.engines.settings import EngineOptions, RunEngineOptions
from datacreate.errors import RESUMABLE, CheckpointError, DatacreateError, EngineError, RunLocked, Stopped, UsageError
from datacreate.files import replace_file
from datacreate.hardware import usable_cores, visible_gpus
from datacreate.locking import FolderLock
from datacreate.messages import Notify, no_notify
from datacreate.settings import as_arguments
from datacreate.signals import Signals, caught_signals, deferred
from datacreate.sweep.cells import Step, SweepCell, build_cells, missing
from datacreate.sweep.folder import Status, SweepFolder, run_process
from datacreate.sweep.plan import SweepPlan, engine_options, short_name

State = Literal["finished", "failed", "running", "pending"]

COMMAND = (sys.executable, "-m", "datacreate")

_CREATED_AT_ONCE = 4
"""Sets that are created at once: enough to keep servers busy, and each process needs memory."""

_STOPPED = "stopped by a signal; finished steps are kept: run the same command to resume"


@dataclass(frozen=True)
class Outcome:
    """The state of a cell. `message` says why it failed, and `step` where."""

    cell: SweepCell
    state: State
    message: str | None = None
    step: Step | None = None
    finished_steps: int = 0


class _SweepCall:
    """The state of one call of `run`, which its threads share: what failed, and what the user sees."""

    def __init__(self, cells: Sequence[SweepCell], signals: Signals, notify: Notify, update: Notify) -> None:
        self.signals, self.notify, self._update = signals, notify, update
        self.error: BaseException | None = None  # the first that stopped a cell: all others also stop
        self.failed: dict[Step, str] = {}
        self.locked: set[SweepCell] = set()  # cells that another process runs
        several = len(cells) > 1
        self.names = {
            cell: f"{number} of {len(cells)}  {cell.name}" if several else cell.name
            for number, cell in enumerate(cells, 1)
        }
        self._lines: dict[str, str] = {}  # of running steps

    @property
    def stopping(self) -> bool:
        return self.error is not None or self.signals.received

    def show(self, cell: SweepCell, line: str | None) -> None:
        """Show the last line of the running step of a cell; None when it has ended."""
        lines = {name: text for name, text in self._lines.items() if name != cell.name}
        self._lines = lines | ({cell.name: line} if line else {})
        self._update("\n".join(self._lines.values()))


class Sweep:
    """Runs the cells of a plan in a folder. `command` runs the arguments of a step; default: this `datacreate`."""

    def __init__(self, plan: SweepPlan, out: Path, command: Sequence[str] | None = None) -> None:
        self.plan = plan
        self._folder = SweepFolder(out)
        self._out = out.absolute()
        self._command = tuple(command or COMMAND)

    @cached_property
    def cells(self) -> tuple[SweepCell, ...]:
        return build_cells(self.plan)

    def _chosen(self, index: int | None) -> tuple[SweepCell, ...]:
        """The cell of that index, from 0; without an index all cells. Raises UsageError if there is none."""
        if index is None:
            return self.cells
        if index < len(self.cells):
            return (self.cells[index],)
        raise UsageError(
            f"plan {self.plan.name} has the cells 0 to {len(self.cells) - 1}, and no {index}; "
            "`datacreate sweep PLAN --dry-run` shows them"
        )

    def states(self, index: int | None = None) -> list[Outcome]:
        """The state of all cells, or of the one of `index`; writes nothing. Raises UsageError for a wrong index."""
        return [self._state(cell) for cell in self._chosen(index)]

    def commands(self, cell: SweepCell) -> list[list[str]]:
        """The commands that `run` would run for a cell."""
        return [["datacreate", *self._arguments(step, step.engine_arguments)] for step in self._unfinished(cell)]

    def missing(self, index: int | None = None) -> list[str]:
        """Lines that say what the plan needs and this machine lacks; none if the cells are finished."""
        return missing(self.plan) if any(map(self._unfinished, self._chosen(index))) else []

    def _unfinished(self, cell: SweepCell, generator: str | None = None) -> list[Step]:
        """The steps that are left to run, in order; with a `generator` only those that need it."""
        steps = [step for step in cell.steps if not self._folder.is_finished(cell, step)]
        return [step for step in steps if generator in (None, step.generator)]

    def run(
        self, index: int | None = None, notify: Notify = no_notify, update: Notify = no_notify, nproc: int | None = None
    ) -> list[Outcome]:
        """Run all unfinished cells, or only the one of `index`; returns their outcomes.

        First the sets of each generator are created, `nproc` at once (default: 4, but one per core); then the cells
        are trained and evaluated, as many at once as there are GPUs.

        `notify` gets lines worth keeping; `update` gets the last lines of the running steps, several times a
        second. A cell that another process runs is skipped. Raises DatacreateError if a benchmark or checkpoint is
        missing, ServersUnavailable, Stopped after a signal or if a step was stopped, LockLost,
        StorageError; the same call resumes.
        """
        chosen = self._chosen(index)
        if missing_lines := self.missing(index):
            problems = "; ".join(missing_lines)
            raise DatacreateError(f"plan {self.plan.name}: nothing was run: {problems}")
        self._folder.create()
        with caught_signals() as signals:
            call = _SweepCall(chosen, signals, notify, update)
            for generator in self.plan.generators:
                self._create(generator, chosen, nproc or min(_CREATED_AT_ONCE, usable_cores()), call)
            self._train([cell for cell in chosen if cell not in call.locked], nproc, call)
            return [
                Outcome(cell, "running") if cell in call.locked else self._state(cell, call.failed) for cell in chosen
            ]

    def _create(self, generator: str, cells: Sequence[SweepCell], nproc: int, call: _SweepCall) -> None:
        """Run the steps of all cells that need a generator, on servers that are started once.

        If they cannot be started, the steps have failed.
        """
        cells = [cell for cell in cells if self._unfinished(cell, generator)]
        steps = [step for cell in cells for step in self._unfinished(cell, generator)]
        options = engine_options(self.plan.create)
        if options.uses_running_servers:
            self._run_cells(cells, [Resources()] * nproc, generator, call)
        elif len(steps) < 2 or "adapter" in self.plan.create:  # each step starts its own
            self._run_cells(cells, [Resources()], generator, call)
        else:
            count = sum(step.examples for step in steps)
            models = (generator, *sorted({step.verifier for step in steps if step.verifier}))
            try:
                with shared_servers(models, options, count, self._out, call.notify) as servers:
                    self._run_cells(cells, [servers] * nproc, generator, call)
            except (EngineError, CheckpointError) as error:
                if error.exit_code == RESUMABLE:
                    raise
                call.failed |= dict.fromkeys(steps, str(error))
                call.notify(f"{generator}: {error}; continuing with the rest")

    def _train(self, cells: Sequence[SweepCell], nproc: int | None, call: _SweepCall) -> None:
        """Run the other steps of the cells, as many cells at once as get GPUs of their own.

        A cell gets at least as many as `nproc` of the plan's trainings, by default one; few cells share all GPUs.
        """
        gpus, gpus_per_cell = visible_gpus(), self.plan.train.get("nproc") or 1
        unfinished = sum(map(bool, map(self._unfinished, cells)))
        at_once = max(1, min(len(gpus) // gpus_per_cell, unfinished, nproc or unfinished))
        resources = [Resources()]
        if at_once > 1:
            groups = (",".join(gpus[number::at_once]) for number in range(at_once))
            resources = [Resources(environment={"CUDA_VISIBLE_DEVICES": group}) for group in groups]
        self._run_cells(cells, resources, None, call)

    def _run_cells(
        self, cells: Sequence[SweepCell], resources: Sequence[Resources], generator: str | None, call: _SweepCall
    ) -> None:
        """Run steps of the cells, as many cells at once as there are `resources`, one for each."""
        free: SimpleQueue[Resources] = SimpleQueue()
        for part in resources:
            free.put(part)

        with deferred(), ThreadPoolExecutor(len(resources)) as pool:
            wait([pool.submit(self._run_cell, cell, free, generator, call) for cell in cells])
            if call.error:
                raise call.error
            if call.signals.received:
                raise Stopped(_STOPPED)

    def _run_cell(self, cell: SweepCell, free: SimpleQueue[Resources], generator: str | None, call: _SweepCall) -> None:
        """Run steps of a cell with free resources. An error also stops the other cells."""
        resources = free.get()
        try:
            if not call.stopping:
                self._run_steps(cell, generator, resources, call)
        except BaseException as error:
            call.error = call.error or error
            raise
        finally:
            free.put(resources)

    def _run_steps(self, cell: SweepCell, generator: str | None, resources: Resources, call: _SweepCall) -> None:
        """Lock a cell, and run its steps that need that generator; None: its steps that need no generator."""
        skipped = list(call.failed)
        try:
            with self._folder.locked(cell, call.notify) as lock, deferred():
                for step in self._unfinished(cell):
                    if call.stopping:
                        raise Stopped(_STOPPED)
                    if step.generator != generator or step.depends_on in skipped:
                        skipped.append(step)
                    elif (message := self._run_step(cell, step, resources, lock, call)) is not None:
                        call.failed[step] = message
                        skipped.append(step)
                    elif step.kind == "evaluate" and not self.plan.keep_weights:
                        self._folder.delete_weights(step)
        except RunLocked as error:
            call.locked.add(cell)
            call.notify(f"{call.names[cell]}  {error}; continuing with the next")

    def _run_step(
        self, cell: SweepCell, step: Step, resources: Resources, lock: FolderLock, call: _SweepCall
    ) -> str | None:
        """Run a step. Returns the last line of a failure, None if the step finished."""
        lock.check()
        self._folder.write(cell, step, Status(state="started", identity=step.identity))
        start, name = time.monotonic(), f"{call.names[cell]}  {step.name}"

        def poll(line: str) -> bool:
            lock.check()
            call.show(cell, f"{name}  {time.monotonic() - start:.0f} s  {line}")
            return call.stopping

        engine = step.engine_arguments if resources.arguments is None else resources.arguments
        command = [*self._command, *self._arguments(step, engine)]
        code, line = run_process(command, self._folder.log(cell, step), poll, resources.environment)
        lock.check()
        call.show(cell, None)
        is_stopped = code != 0 and (code == RESUMABLE or call.stopping)
        result = "finished" if code == 0 else "stopped" if is_stopped else f"failed: {line}"
        call.notify(f"{name}  {result}, {time.monotonic() - start:.0f} s")
        if is_stopped:
            raise Stopped(_STOPPED if call.stopping else f"{cell.name}, {step.name}: {line}")
        status = Status(state="finished", identity=step.identity)
        if code:
            status = Status(state="failed", identity=step.identity, message=line)
        self._folder.write(cell, step, status)
        return status.message

    def _arguments(self, step: Step, engine: Sequence[str]) -> list[str]:
        """The arguments of a step with absolute paths: it may start in any folder."""
        own = [argument if isinstance(argument, str) else str(self._out / argument) for argument in step.arguments]
        return [*own, *engine]

    def _state(self, cell: SweepCell, failed: Mapping[Step, str] | None = None) -> Outcome:
        """The state of a cell from its files; `failed` are the steps that failed in this process, with the messages."""
        unfinished = self._unfinished(cell)
        outcome = partial(Outcome, cell, finished_steps=len(cell.steps) - len(unfinished))
        if failed is None and unfinished and self._folder.is_running(cell):
            return outcome("running")
        for step in unfinished:
            message = self._folder.failure(cell, step) if failed is None else failed.get(step)
            if message is not None:
                return outcome("failed", message, step)
        return outcome("pending" if unfinished else "finished")


@dataclass(frozen=True)
class Resources:
    """The servers or GPUs that a step uses; without any it starts servers itself, and uses all GPUs."""

    arguments: tuple[str, ...] | None = None  # further ones of a step; None: the engine options of the plan
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def shared_servers(
    models: Sequence[str], options: RunEngineOptions, count: int, logs: Path, notify: Notify
) -> Iterator[Resources]:
    """Servers of the models, which are stopped at the end of the block.

    The first of the models is the generator, the others are verifiers. `count` is the number of examples of all
    steps; the servers write their logs into `logs`. EngineError or CheckpointError if a server cannot be started.
    """
    checkpoints = (resolve_checkpoint(name, options) for name in models)
    generator, *verifiers = {checkpoint.sha256: checkpoint for checkpoint in checkpoints}.values()
    sharing = [LocalModel(generator, options)]
    sharing += [LocalModel(verifier, options.for_verifier, verifies=True) for verifier in verifiers]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="datacreate-")))
        started = []
        for model in sharing:
            log = logs / f"server-{short_name(model.checkpoint.name)}.log"
            servers = local_servers(model, count=count, log=log, sharing=sharing, notify=notify)
            stack.callback(servers.stop)
            servers.start()
            started.append(servers.addresses())
        for number, address in enumerate(chain.from_iterable(started)):
            replace_file(folder / f"{number}.json", address.model_dump_json(), mode=0o600)
        arguments = ["--url", str(folder), "--servers", str(len(started[0]))]
        yield Resources((*arguments, *as_arguments(EngineOptions, options.given(("max_model_len",)))))
