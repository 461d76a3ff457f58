"""Several cells at once on one server: the same files as one after the other, and nobody waits for a failed one."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datacreate.engines.request import Completion, Request
from datacreate.engines.server_sources import Address
from datacreate.errors import Stopped, StorageError
from datacreate.sweep import run
from datacreate.sweep.folder import run_process
from datacreate.sweep.plan import load_plan
from datacreate.sweep.run import Sweep, start_shared_servers
from tests.support.scripted import answering
from tests.support.servers import Handler, Server, _tests
from tests.sweep.conftest import Bench, states
from tests.sweep.quick import run_here

COMMAND = (sys.executable, "-m", "datacreate")
PLAN: dict[str, Any] = {"example_seeds": [1, 2], "create": {"verify": "off", "num_examples": 2, "request_timeout": 200}}
CELLS = ["creak-writer-random-1", "creak-writer-random-2"]


def by_prompt(request: Request) -> Completion:
    """The same answer to the same prompt, whoever asks first."""
    return answering()(replace(request, id=0))


class Meeting:
    """Holds all answers until two cells, which have different formatting examples, are waiting for one."""

    def __init__(self) -> None:
        self.prompts: set[str] = set()
        self.met = threading.Event()
        self.on_meeting = self.met.set

    def __call__(self, handler: Handler, body: dict[str, Any]) -> None:
        if not _tests(body) and not self.met.is_set():
            self.prompts.add(json.dumps(body["messages"]))
            if len(self.prompts) == 2:
                self.on_meeting()
            assert self.met.wait(60), "only one cell has asked"
        handler.reply(handler.owner.answer(body))


class Started:
    """The server as `LocalServers` would have started it."""

    def __init__(self, server: Server) -> None:
        self.server, self.started, self.stopped = server, 0, 0

    def start(self) -> None:
        self.started += 1

    def addresses(self) -> tuple[Address, ...]:
        return (Address(url=self.server.url, max_num_seqs=4, key="secret"),)

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def started(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    with Server(script=by_prompt, model="writer", key="secret") as server:
        local = Started(server)
        monkeypatch.setattr("datacreate.sweep.run.make_local_servers", lambda *_, **__: local)
        monkeypatch.setattr("datacreate.sweep.run.start_shared_servers", start_shared_servers)
        monkeypatch.setattr("datacreate.sweep.run.run_process", run_process)
        yield local
        assert local.started == local.stopped


def sets(out: Path) -> list[bytes]:
    return [(out / "runs" / cell / "train.jsonl").read_bytes() for cell in CELLS]


def test_two_cells_at_once_on_one_server_give_what_they_give_one_after_the_other(
    bench: Bench, started: Started
) -> None:
    alone = Sweep(load_plan(str(bench.write(**PLAN))), bench.folder / "alone", command=COMMAND)
    assert set(states(alone.run(max_parallel=1)).values()) == {"finished"}
    assert (started.started, started.server.max_out) == (1, 1)
    started.server.fault = Meeting()
    assert set(states(bench.sweep(COMMAND, **PLAN).run(max_parallel=2)).values()) == {"finished"}
    assert (started.started, started.server.max_out) == (2, 2)
    assert sets(bench.out) == sets(bench.folder / "alone")
    log = (bench.out / "cells" / CELLS[0] / "create.log").read_text()
    assert re.search(" --url .* --request-timeout 200", log)
    assert "secret" not in log


def test_a_signal_stops_all_cells_and_a_rerun_resumes_them(bench: Bench, started: Started) -> None:
    meeting = started.server.fault = Meeting()
    meeting.on_meeting = lambda: os.kill(os.getpid(), signal.SIGTERM)
    shown: list[str] = []
    sweep = bench.sweep(COMMAND, **PLAN)
    with pytest.raises(Stopped, match="run the same command to resume") as caught:
        sweep.run(update=shown.append, max_parallel=2)
    assert caught.value.exit_code == 75
    meeting.met.set()  # until now no answer came, so that no cell could finish
    assert max(text.count("\n") for text in shown) == 1  # a line for each running cell
    assert set(states(sweep.states()).values()) == {"pending"}
    assert set(states(sweep.run(max_parallel=2)).values()) == {"finished"}
    assert [len(rows.splitlines()) for rows in sets(bench.out)] == [10, 10]


def test_the_error_that_stops_all_cells_is_raised(
    bench: Bench, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2)

    def step(command: Sequence[str], log: Path, poll: Any, environment: Mapping[str, str]) -> tuple[int, str]:
        together.wait(60)
        if log.parent.name == CELLS[1]:
            raise StorageError("no space left")
        while not poll(""):
            pass
        return -15, ""

    monkeypatch.setattr(run, "run_process", step)
    with pytest.raises(StorageError, match="no space left"):
        bench.sweep(COMMAND, **PLAN).run(max_parallel=2)


@pytest.mark.parametrize(
    ("gpus", "cells", "nproc", "seen"),
    [
        ("0,1,2,3", 4, None, {"0", "1", "2", "3"}),
        ("0,1,2,3", 2, None, {"0,2", "1,3"}),
        ("0,1,2,3", 4, 2, {"0,2", "1,3"}),
        ("0", 2, None, {"all"}),
        ("", 2, None, {"all"}),
    ],
    ids=["a cell per GPU", "few cells", "nproc", "one GPU", "a CPU"],
)
def test_cells_are_trained_at_once_on_gpus_of_their_own(
    gpus: str, cells: int, nproc: int | None, seen: set[str], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    together, here = threading.Barrier(len(seen)), threading.Lock()
    used: set[str] = set()
    steps: list[tuple[str, str]] = []

    def step(command: Sequence[str], log: Path, poll: Any, environment: Mapping[str, str]) -> tuple[int, str]:
        mine = environment.get("CUDA_VISIBLE_DEVICES", "all")
        with here:
            assert mine not in used, "two cells use one GPU"
            used.add(mine)
            steps.append((command[len(COMMAND)], mine))
        if "train" in command:
            together.wait(60)  # all GPUs are in use
        with here:
            used.remove(mine)
            return run_here(command, log, poll, environment)

    monkeypatch.setattr(run, "run_process", step)
    seeds = list(range(1, cells + 1))
    train = {} if nproc is None else {"nproc": nproc}
    plan = {"conditions": ["human"], "encoders": ["./models/reader"], "example_seeds": seeds, "train": train}
    assert set(states(bench.run(**plan)).values()) == {"finished"}
    assert {gpus for _, gpus in steps} == seen
    assert [verb for verb, _ in steps].count("train") == cells
    assert len(set(steps)) == 2 * len(seen)  # a cell is evaluated where it was trained
