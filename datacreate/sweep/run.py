"""Runs a sweep, each step as a child process. Finished steps are skipped.

First the sets of each generator are created, several at once on servers that are started once. Then the GPUs are free:
several cells are trained and evaluated at once, each on GPUs of its own.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from datacreate.engines.factory import LocalModel, local_servers, make_engine, resolve_checkpoint
from datacreate.engines.local import LocalServers
from datacreate.engines.settings import EngineOptions, RunEngineOptions
from datacreate.errors import RESUMABLE, CheckpointError, EngineError, RunLocked, Stopped, UsageError
from datacreate.files import replace_file
from datacreate.hardware import usable_cores, visible_gpus
from datacreate.locking import FolderLock
from datacreate.messages import Notify, no_notify
from datacreate.settings import as_arguments
from datacreate.signals import Signals, caught_signals, deferred
from datacreate.sweep.cells import Requirement, Step, SweepCell, build_cells
from datacreate.sweep.folder import POLL_SECONDS, Status, SweepFolder, run_process
from datacreate.sweep.plan import SweepPlan, engine_options, short_name

State = Literal["finished", "failed", "blocked", "running", "pending"]
"""Of a cell. blocked: a checkpoint or benchmark is missing."""

COMMAND = (sys.executable, "-m", "datacreate")

_WAIT_SECONDS = "1200"
"""For a shared server that is restarted and loads a large model."""

_STOPPED = "stopped by a signal; finished steps are kept: run the same command to resume"


@dataclass(frozen=True)
class Outcome:
    """The state of a cell. `message` says why it failed or is blocked, and `step` where."""

    cell: SweepCell
    state: State
    message: str | None = None
    step: Step | None = None
    finished_steps: int = 0


class _SweepCall:
    """One call of `run`: how it talks to the user and when it stops. Threads share it."""

    def __init__(self, cells: Sequence[SweepCell], signals: Signals, notify: Notify, update: Notify) -> None:
        self.signals, self.notify, self._update = signals, notify, update
        self.aborted = False  # a step was stopped, or a lock was lost: all others also stop
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
        return self.aborted or self.signals.received

    def show(self, cell: SweepCell, line: str | None) -> None:
        """The last line of the running step of a cell; None when it has ended."""
        lines = {name: text for name, text in self._lines.items() if name != cell.name}
        self._lines = lines | ({cell.name: line} if line else {})
        self._update("\n".join(self._lines.values()))


class Sweep:
    """A plan in a folder. `command` runs a step's arguments; default: this `datacreate`."""

    def __init__(self, plan: SweepPlan, out: Path, command: Sequence[str] | None = None) -> None:
        self.plan = plan
        self._folder = SweepFolder(out, plan)
        self._out = out.absolute()
        self._command = tuple(command or COMMAND)
        self._missing: dict[Requirement, str | None] = {}

    @cached_property
    def cells(self) -> tuple[SweepCell, ...]:
        return build_cells(self.plan)

    def _chosen(self, index: int | None) -> tuple[SweepCell, ...]:
        """The cell of that index, from 0, or all. UsageError if there is none."""
        if index is None:
            return self.cells
        if index < len(self.cells):
            return (self.cells[index],)
        raise UsageError(
            f"plan {self.plan.name} has the cells 0 to {len(self.cells) - 1}, and no {index}; "
            "`datacreate sweep PLAN --dry-run` shows them"
        )

    def states(self, index: int | None = None) -> list[Outcome]:
        """The state of all cells, or of the one of `index`; writes nothing.

        SweepPlanError if the folder belongs to another plan, UsageError if there is no such cell.
        """
        self._folder.check_plan()
        return [self._state(cell) for cell in self._chosen(index)]

    def commands(self, cell: SweepCell) -> list[list[str]]:
        """The commands that `run` would run for a cell, as far as their requirements are met."""
        steps = self._steps_to_run(cell, [])
        return [["datacreate", *self._arguments(step, step.engine_arguments)] for step in steps]

    def _steps_to_run(self, cell: SweepCell, skipped: list[Step]) -> Iterator[Step]:
        """Unfinished steps whose requirements are met, without those that depend on a step in `skipped`."""
        for step in cell.steps:
            is_finished = self._folder.is_finished(cell, step)
            if step.depends_on in skipped or (not is_finished and self._why_missing(step)):
                skipped.append(step)
            elif not is_finished:
                yield step

    def missing(self, cells: Sequence[SweepCell]) -> list[str]:
        """A line for each unmet requirement of unfinished steps."""
        lacking: dict[str, dict[str, None]] = {}
        for cell in cells:
            left = [step for step in cell.steps if not self._folder.is_finished(cell, step)]
            for why in filter(None, (self._check(needed) for step in left for needed in step.requirements)):
                lacking.setdefault(why, {})[cell.name] = None
        return [
            f"missing for {next(iter(names)) if len(names) == 1 else f'{len(names)} cells'}: {why}"
            for why, names in lacking.items()
        ]

    def run(
        self,
        index: int | None = None,
        notify: Notify = no_notify,
        update: Notify = no_notify,
        nproc: int | None = None,
    ) -> list[Outcome]:
        """Run all unfinished cells, or only the one of `index`; returns their outcomes.

        First the sets of each generator are created, as many at once as keep its servers busy but at most `nproc`
        (default: one per core); then the cells are trained and evaluated, as many at once as there are GPUs.

        `notify` gets lines worth keeping; `update` gets the last lines of the running steps, several times a
        second. A cell that another process runs is skipped. Raises Stopped after a signal or if a step was stopped,
        LockLost, StorageError, SweepPlanError; the same call resumes.
        """
        chosen = self._chosen(index)
        self._folder.check_plan()
        self._folder.create()
        for line in self.missing(chosen):
            notify(line)
        with caught_signals() as signals:
            call = _SweepCall(chosen, signals, notify, update)
            for generator in self.plan.generators:
                self._generate(generator, chosen, nproc or usable_cores(), call)
            self._train([cell for cell in chosen if cell not in call.locked], nproc, call)
            return [
                Outcome(cell, "running") if cell in call.locked else self._state(cell, call.failed)
                for cell in chosen
            ]

    def _generate(self, generator: str, cells: Sequence[SweepCell], nproc: int, call: _SweepCall) -> None:
        """Run the steps of all cells that need a generator, on servers that are started once."""
        found = [(cell, step) for cell in cells for step in self._steps_to_run(cell, [])]
        found = [(cell, step) for cell, step in found if step.generator == generator]
        first = dict(reversed(found))
        with self._servers(generator, [step for _, step in found], call) as servers:
            loads = [(cell, first[cell].in_flight or servers.slots) for cell in cells if cell in first]
            # Twice the slots: a cell leaves servers idle at its start, at its end, and while it scores.
            max_load = 2 * servers.slots if servers.slots > 1 else 1
            self._run_cells(loads, max_load, [servers] * nproc, generator, call)

    def _train(self, cells: Sequence[SweepCell], nproc: int | None, call: _SweepCall) -> None:
        """Run the other steps of the cells, as many cells at once as get GPUs of their own.

        A cell gets at least as many as `nproc` of the plan's trainings, by default one; few cells share all GPUs.
        """
        gpus, each = visible_gpus(), self.plan.train.get("nproc") or 1
        unfinished = sum(any(True for _ in self._steps_to_run(cell, [*call.failed])) for cell in cells)
        at_once = max(1, min(len(gpus) // each, unfinished, nproc or unfinished))
        free = [Resources()]
        if at_once > 1:
            groups = (",".join(gpus[n::at_once]) for n in range(at_once))
            free = [Resources(environment={"CUDA_VISIBLE_DEVICES": group}) for group in groups]
        self._run_cells([(cell, 1) for cell in cells], at_once, free, None, call)

    def _run_cells(
        self,
        waiting: list[tuple[SweepCell, int]],
        max_load: int,
        free: list[Resources],
        generator: str | None,
        call: _SweepCall,
    ) -> None:
        """Run the steps of the waiting cells, each with some of the `free` resources while it runs.

        The next cell starts if the loads of the running ones add up to less than `max_load`.
        """
        running: dict[Future[None], tuple[int, Resources]] = {}
        with deferred(), ThreadPoolExecutor(len(free)) as pool:
            try:
                while running or (waiting and not call.stopping):
                    while waiting and free and sum(load for load, _ in running.values()) < max_load:
                        (cell, load), resources = waiting.pop(0), free.pop(0)
                        future = pool.submit(self._run_steps, cell, generator, resources, call)
                        running[future] = load, resources
                    ended, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                    for future in ended:
                        free.append(running.pop(future)[1])
                        future.result()
                    for _, resources in [*running.values()][:1]:  # servers are those of all
                        resources.repair(call.notify)
                if call.signals.received:
                    raise Stopped(_STOPPED)
            except BaseException:
                call.aborted = True  # the block waits for the other steps
                raise

    @contextmanager
    def _servers(self, generator: str, steps: Sequence[Step], call: _SweepCall) -> Iterator[Resources]:
        """The servers of a generator; if there are none, each step starts its own, one after the other."""
        if len(steps) < 2 or "adapter" in self.plan.create:
            yield Resources()
            return
        count = sum(step.examples for step in steps)
        verifiers = {step.verifier for step in steps if step.verifier}
        options = engine_options(self.plan.create)
        with ExitStack() as stack:
            servers = Resources()
            try:
                servers = stack.enter_context(
                    shared_servers((generator, *sorted(verifiers)), options, count, self._out, call.notify)
                )
                shared = f"{len(steps)} steps share servers for {servers.slots} requests at once"
                call.notify(f"{generator}: {shared}")
            except (EngineError, CheckpointError) as error:
                if error.exit_code == RESUMABLE:
                    raise
                call.notify(f"{generator}: no shared server ({error}); each cell starts its own")
            yield servers

    def _run_steps(
        self, cell: SweepCell, generator: str | None, resources: Resources, call: _SweepCall
    ) -> None:
        """Lock a cell, and run its steps with that generator, or with None those without one."""
        skipped = list(call.failed)
        try:
            with self._folder.locked(cell, call.notify) as lock, deferred():
                for step in self._steps_to_run(cell, skipped):
                    if call.stopping:
                        raise Stopped(_STOPPED)
                    if step.generator != generator:
                        skipped.append(step)
                    elif (message := self._run_step(cell, step, resources, lock, call)) is not None:
                        call.failed[step] = message
                        skipped.append(step)
                    self._delete_weights(cell)
                self._delete_weights(cell)
        except RunLocked as error:
            call.locked.add(cell)
            call.notify(f"{call.names[cell]}  {error}; continuing with the next")

    def _delete_weights(self, cell: SweepCell) -> None:
        """Delete the weights of evaluated models, unless the plan keeps them."""
        for step in cell.steps if not self.plan.keep_weights else ():
            if step.kind == "evaluate" and self._folder.is_finished(cell, step):
                self._folder.delete_weights(step)

    def _run_step(
        self, cell: SweepCell, step: Step, resources: Resources, lock: FolderLock, call: _SweepCall
    ) -> str | None:
        """Run a step. Returns the last line of a failure, None if the step finished."""
        lock.check()
        if note := self._folder.remove_unusable(step):
            call.notify(note)
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
        paths = [word if isinstance(word, str) else str(self._out / word) for word in step.arguments]
        return [*paths, *engine]

    def _state(self, cell: SweepCell, failed: Mapping[Step, str] | None = None) -> Outcome:
        """The state of a cell from its files; `failed` are the steps that failed in this process."""
        left = [step for step in cell.steps if not self._folder.is_finished(cell, step)]
        outcome = partial(Outcome, cell, finished_steps=len(cell.steps) - len(left))
        if not left:
            return outcome("finished")
        if failed is None and self._folder.is_running(cell):
            return outcome("running")
        if failed is None:
            found = {step: status for step in left if (status := self._folder.status(cell, step))}
            failed = {step: status.message for step, status in found.items() if status.message is not None}
        for step in left:
            if step in failed:
                return outcome("failed", failed[step], step)
        for step in left:
            if why := self._why_missing(step):
                return outcome("blocked", why, step)
        return outcome("pending")

    def _why_missing(self, step: Step) -> str | None:
        """Why a requirement of the step is not met; None if all are met."""
        return next(filter(None, map(self._check, step.requirements)), None)

    def _check(self, requirement: Requirement) -> str | None:
        if requirement not in self._missing:  # each is checked once
            self._missing[requirement] = requirement.missing()
        return self._missing[requirement]


@dataclass(frozen=True)
class Resources:
    """What a step runs with: running servers, GPUs, or what it finds itself."""

    slots: int = 1  # requests that the servers process at once
    arguments: tuple[str, ...] | None = None  # further ones of a step; None: the engine options of the plan
    environment: Mapping[str, str] = field(default_factory=dict)
    local: Sequence[LocalServers] = ()

    def repair(self, notify: Notify) -> None:
        """Restart a server that has ended, once."""
        for servers in self.local:
            for address in servers.now():
                if message := servers.repair(address.url, hung=False):
                    notify(message)


@contextmanager
def shared_servers(
    models: Sequence[str], options: RunEngineOptions, count: int, logs: Path, notify: Notify
) -> Iterator[Resources]:
    """The servers of `options.urls`, or servers that are started here and stopped at the end of the block.

    The first of the models is the generator, the others are verifiers. `count` is the number of examples of all
    steps; the servers write their logs into `logs`. EngineError or CheckpointError if a server cannot be started;
    ServersUnavailable if none of `options.urls` answers.
    """
    if options.uses_running_servers:
        checkpoint = resolve_checkpoint(models[0], options)
        with closing(make_engine(checkpoint, options, count=count, notify=notify)) as engine:
            found = Resources(engine.slots)
        yield found
        return
    checkpoints = {found.sha256: found for found in (resolve_checkpoint(name, options) for name in models)}
    first, *others = checkpoints.values()
    sharing = [LocalModel(first, options)]
    sharing += [LocalModel(verifier, options.for_verifier, verifies=True) for verifier in others]
    with ExitStack() as stack:
        local: list[LocalServers] = []
        for model in sharing:
            log = logs / f"server-{short_name(model.checkpoint.name)}.log"
            shared: dict[str, Any] = {"count": count, "log": log, "models": sharing, "notify": notify}
            servers = local_servers(model.checkpoint, model.options, **shared)
            stack.callback(servers.stop)
            servers.start()
            local.append(servers)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="datacreate-")))
        for number, address in enumerate(address for servers in local for address in servers.now()):
            replace_file(folder / f"{number}.json", address.model_dump_json(), mode=0o600)
        addresses = local[0].now()
        arguments = ["--url", str(folder), "--servers", str(len(addresses)), "--wait", _WAIT_SECONDS]
        arguments += as_arguments(EngineOptions, options.given(("max_model_len",)))
        slots = sum(address.max_num_seqs or 1 for address in addresses)
        yield Resources(slots, tuple(arguments), local=local)
