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
from functools import partial
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from datacreate.benchmarks import find_benchmark, split_sha256
from datacreate.checkpoints.checkpoint import resolve
from datacreate.engines import EngineOptions, RunEngineOptions
from datacreate.engines.factory import LocalModel, make_local_servers, resolve_checkpoint
from datacreate.errors import (
    OTHER_WRITER,
    RESUMABLE,
    CheckpointError,
    DatacreateError,
    EngineError,
    RunLocked,
    Stopped,
    UsageError,
)
from datacreate.files import replace_file, storage_error
from datacreate.hardware import usable_cores, visible_gpus
from datacreate.locking import FolderLock
from datacreate.messages import Notify, no_notify
from datacreate.settings import as_arguments
from datacreate.signals import Signals, caught_signals, deferred
from datacreate.sweep.cells import Step, SweepCell, build_cells
from datacreate.sweep.folder import SweepFolder, run_process
from datacreate.sweep.plan import SweepPlan, select_engine_options, short_name

COMMAND = (sys.executable, "-m", "datacreate")

_CREATED_AT_ONCE = 4  # sets that are created at once: enough to keep servers busy, and each process needs memory

_STOPPED = "stopped by a signal; finished steps are kept: run the same command to resume"


@dataclass(frozen=True)
class CellState:
    cell: SweepCell
    state: Literal["finished", "failed", "running", "pending"]
    message: str | None = None  # why the cell failed, or which folder is locked
    step: Step | None = None  # that failed
    finished_steps: int = 0


@dataclass(frozen=True)
class Resources:
    """The servers or GPUs that a step uses. By default it starts its own servers, and uses all GPUs."""

    arguments: tuple[str, ...] | None = None  # that name the servers; None: the engine options of the plan
    environment: Mapping[str, str] = field(default_factory=dict)  # that names the GPUs


class Sweep:
    """Runs the cells of a plan in a folder, or only the cell of an `index`, from 0.

    `command` runs the arguments of a step; by default it is this `datacreate`. Raises UsageError if there is no cell of
    that index.
    """

    def __init__(self, plan: SweepPlan, out: Path, index: int | None = None, command: Sequence[str] = ()) -> None:
        self.plan, self.out, self.command = plan, out, command or COMMAND
        self.folder = SweepFolder(out)
        self.cells = build_cells(plan)
        if index is not None:
            if index >= len(self.cells):
                raise UsageError(
                    f"plan {plan.name} has the cells 0 to {len(self.cells) - 1}, and no {index}; "
                    "`datacreate sweep PLAN --dry-run` shows them"
                )
            self.cells = (self.cells[index],)

    def states(self) -> list[CellState]:
        """The states of the cells; writes nothing."""
        return [self._state(cell) for cell in self.cells]

    def _state(self, cell: SweepCell, failed: Mapping[Step, str] | None = None) -> CellState:
        """The state of a cell from its files; `failed` are the steps that failed in this process, with the messages."""
        unfinished = self.unfinished(cell)
        make_state = partial(CellState, cell, finished_steps=len(cell.steps) - len(unfinished))
        if failed is None and unfinished and self.folder.is_running(cell):
            return make_state("running")
        for step in unfinished:
            status = self.folder.status(step)
            message = (status and status.message) if failed is None else failed.get(step)
            if message:
                return make_state("failed", message, step)
        return make_state("pending" if unfinished else "finished")

    def unfinished(self, cell: SweepCell) -> list[Step]:
        return [step for step in cell.steps if not self.folder.is_finished(step)]

    def commands(self, cell: SweepCell) -> list[list[str]]:
        """The commands that `run` would run for a cell."""
        return [["datacreate", *self.arguments(step)] for step in self.unfinished(cell)]

    def arguments(self, step: Step, engine: Sequence[str] | None = None) -> list[str]:
        """The arguments of a step with absolute paths: it may start in any folder.

        `engine` are those about engines, by default its own.
        """
        out = self.out.absolute()
        own = [argument if isinstance(argument, str) else str(out / argument) for argument in step.arguments]
        return [*own, *(step.engine_arguments if engine is None else engine)]

    def missing_requirements(self) -> list[str]:
        """Lines that say what the unfinished steps need and this machine lacks. Reads no rows and no weights."""
        steps = [step for cell in self.cells for step in self.unfinished(cell)]
        problems = [
            f"{self.out / step.folder}: the weights of its models were deleted after their evaluation "
            "(`keep_weights: true` keeps them); remove the folder to train them again"
            for step in steps
            if step.subcommand == "evaluate" and self.folder.lacks_weights(step)
        ]
        for needed, name in dict.fromkeys(need for step in steps for need in step.needs):
            try:
                if needed == "model":
                    resolve_checkpoint(name, select_engine_options(self.plan.create))
                elif needed == "encoder":
                    resolve(name, "encoder")
                else:
                    split_sha256(find_benchmark(name), needed)
            except DatacreateError as error:
                problems.append(str(error))
        return list(dict.fromkeys(problems))

    def run(
        self, notify: Notify = no_notify, update: Notify = no_notify, max_parallel: int | None = None
    ) -> list[CellState]:
        """Run all unfinished cells; returns their states.

        First the sets of each generator are created, `max_parallel` at once (default: 4, or one per core if there are
        fewer); then the cells are trained and evaluated, as many at once as there are GPUs.

        `notify` gets lines worth keeping; `update` gets the last lines of the running steps, several times a
        second. A cell of which another process has locked a folder is skipped. Raises DatacreateError if a benchmark
        or checkpoint is missing, ServersUnavailable, Stopped after a signal or if a step was stopped, LockLost,
        StorageError; the same call resumes.
        """
        if missing := self.missing_requirements():
            raise DatacreateError(f"plan {self.plan.name}: nothing was run: {'; '.join(missing)}")
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.out, error) from None
        with caught_signals() as signals:
            execution = _SweepExecution(self, signals, notify, update)
            for generator in self.plan.generators:
                execution.create(generator, max_parallel or min(_CREATED_AT_ONCE, usable_cores()))
            execution.train(max_parallel)
        return [
            CellState(cell, "running", execution.locked[cell])
            if cell in execution.locked
            else self._state(cell, execution.failed)
            for cell in self.cells
        ]


class _SweepExecution:
    """One call of `Sweep.run`: what its threads share."""

    def __init__(self, sweep: Sweep, signals: Signals, notify: Notify, update: Notify) -> None:
        self._sweep, self._plan, self._folder, self._cells = sweep, sweep.plan, sweep.folder, sweep.cells
        self._signals, self._notify, self._update = signals, notify, update
        self._error: BaseException | None = None  # the first that stopped a cell: all others also stop
        self.failed: dict[Step, str] = {}
        self.locked: dict[SweepCell, str] = {}  # cells of which another process has locked a folder, and the message
        total = len(sweep.cells)
        self._names = {
            cell: f"{number} of {total}  {cell.name}" if total > 1 else cell.name
            for number, cell in enumerate(sweep.cells, 1)
        }
        self._lines: dict[str, str] = {}  # of running steps

    @property
    def _stopping(self) -> bool:
        return self._error is not None or self._signals.received

    def _show(self, cell: SweepCell, line: str | None) -> None:
        """Show the last line of the running step of a cell; None when it has ended."""
        lines = {name: text for name, text in self._lines.items() if name != cell.name}
        self._lines = lines | ({cell.name: line} if line else {})
        self._update("\n".join(self._lines.values()))

    def create(self, generator: str, max_parallel: int) -> None:
        """Run the steps of all cells that need a generator, on servers that are started once.

        If they cannot be started, the steps have failed.
        """
        by_cell = {cell: [s for s in self._sweep.unfinished(cell) if s.generator == generator] for cell in self._cells}
        cells = [cell for cell, steps in by_cell.items() if steps]
        steps = list(chain.from_iterable(by_cell.values()))
        options = select_engine_options(self._plan.create)
        if options.uses_remote_servers:
            self._run_cells(cells, [Resources()] * max_parallel, generator)
        elif len(steps) < 2 or "adapter" in self._plan.create:  # each step starts its own
            self._run_cells(cells, [Resources()], generator)
        else:
            count = sum(step.examples for step in steps)
            models = tuple(dict.fromkeys(name for step in steps for needed, name in step.needs if needed == "model"))
            try:
                with start_shared_servers(models, options, count, self._sweep.out, self._notify) as servers:
                    self._run_cells(cells, [servers] * max_parallel, generator)
            except (EngineError, CheckpointError) as error:
                if error.exit_code == RESUMABLE:
                    raise
                self.failed |= dict.fromkeys(steps, str(error))
                self._notify(f"{generator}: {error}; continuing with the rest")

    def train(self, max_parallel: int | None) -> None:
        """Run the other steps of the cells, as many cells at once as get GPUs of their own.

        A cell gets at least as many as `nproc` of the plan's trainings, by default one; few cells share all GPUs.
        """
        cells = [cell for cell in self._cells if cell not in self.locked]
        gpus, gpus_per_cell = visible_gpus(), self._plan.train.get("nproc") or 1
        unfinished = sum(map(bool, map(self._sweep.unfinished, cells)))
        at_once = max(1, min(len(gpus) // gpus_per_cell, unfinished, max_parallel or unfinished))
        resources = [Resources()]
        if at_once > 1:
            groups = (",".join(gpus[number::at_once]) for number in range(at_once))
            resources = [Resources(environment={"CUDA_VISIBLE_DEVICES": group}) for group in groups]
        self._run_cells(cells, resources, None)

    def _run_cells(self, cells: Sequence[SweepCell], resources: Sequence[Resources], generator: str | None) -> None:
        """Run steps of the cells, as many cells at once as there are `resources`, one for each."""
        free: SimpleQueue[Resources] = SimpleQueue()
        for part in resources:
            free.put(part)
        with deferred(), ThreadPoolExecutor(len(resources)) as pool:
            wait([pool.submit(self._run_cell, cell, free, generator) for cell in cells])
            if self._error:
                raise self._error
            if self._signals.received:
                raise Stopped(_STOPPED)

    def _run_cell(self, cell: SweepCell, free: SimpleQueue[Resources], generator: str | None) -> None:
        """Run the steps of a cell that need that generator; None: those that need none.

        An error also stops the other cells.
        """
        resources, skipped = free.get(), list(self.failed)
        try:
            if self._stopping:
                return
            with self._folder.locked(cell, self._notify) as lock, deferred():
                for step in self._sweep.unfinished(cell):
                    if self._stopping:
                        raise Stopped(_STOPPED)
                    is_ready = step.generator == generator and step.depends_on not in skipped
                    if not (is_ready and self._run_step(cell, step, resources, lock)):
                        skipped.append(step)
                    elif step.subcommand == "evaluate" and not self._plan.keep_weights:
                        self._folder.delete_weights(step)
        except RunLocked as error:
            self.locked[cell] = str(error)
            self._notify(f"{self._names[cell]}  {error}; continuing with the next")
        except BaseException as error:  # noqa: BLE001 (`_run_cells` raises it)
            self._error = self._error or error
        finally:
            free.put(resources)

    def _run_step(self, cell: SweepCell, step: Step, resources: Resources, lock: FolderLock) -> bool:
        """Run a step; returns whether it finished. Raises RunLocked if another process writes in its folder."""
        lock.check()
        self._folder.write(step, "started")
        start, name = time.monotonic(), f"{self._names[cell]}  {step.name}"

        def poll(line: str) -> bool:
            lock.check()
            self._show(cell, f"{name}  {time.monotonic() - start:.0f} s  {line}")
            return self._stopping

        command = [*self._sweep.command, *self._sweep.arguments(step, resources.arguments)]
        code, line = run_process(command, self._folder.log(step), poll, resources.environment)
        lock.check()
        self._show(cell, None)
        if code == 0:
            result = "finished"
        elif code in (RESUMABLE, OTHER_WRITER) or self._stopping:
            result = "stopped"
        else:
            result = f"failed: {line}"
        self._notify(f"{name}  {result}, {time.monotonic() - start:.0f} s")
        if result == "finished":
            self._folder.write(step, "finished")
            return True
        if result == "stopped":
            if self._stopping:
                raise Stopped(_STOPPED)
            raise RunLocked(line) if code == OTHER_WRITER else Stopped(f"{cell.name}, {step.name}: {line}")
        self._folder.write(step, "failed", line)
        self.failed[step] = line
        return False


@contextmanager
def start_shared_servers(
    models: Sequence[str], options: RunEngineOptions, count: int, logs: Path, notify: Notify
) -> Iterator[Resources]:
    """Servers of the models, which are stopped at the end of the block.

    The first of the models is the generator, the others are verifiers. `count` is the number of examples of all
    steps; the servers write their logs into `logs`. EngineError or CheckpointError if a server cannot be started.
    """
    checkpoints = (resolve_checkpoint(name, options) for name in models)
    generator, *verifiers = {checkpoint.sha256: checkpoint for checkpoint in checkpoints}.values()
    sharing = [LocalModel(generator, options)]
    sharing += [LocalModel(verifier, options.for_verifier, only_scores=True) for verifier in verifiers]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="datacreate-")))
        started = []
        for model in sharing:
            log = logs / f"server-{short_name(model.checkpoint.name)}.log"
            servers = make_local_servers(model, count=count, log=log, sharing=sharing, notify=notify)
            stack.callback(servers.stop)
            servers.start()
            started.append(servers.addresses())
        for number, address in enumerate(chain.from_iterable(started)):
            replace_file(folder / f"{number}.json", address.model_dump_json(), mode=0o600)
        arguments = ["--url", str(folder), "--servers", str(len(started[0]))]
        of_clients = {"max_model_len": options.max_model_len, "request_timeout": options.request_timeout}
        yield Resources((*arguments, *as_arguments(EngineOptions, of_clients)))
