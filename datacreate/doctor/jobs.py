"""What a job needs: looked at by the same code that the job itself would run into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from datacreate.benchmarks import load_registry
from datacreate.checkpoints import resolve, served
from datacreate.doctor.findings import Findings, Job
from datacreate.doctor.homes import nearest, writable
from datacreate.doctor.line import WORKS
from datacreate.engines.addresses import Addresses
from datacreate.engines.factory import make_engine, only_model
from datacreate.engines.settings import EngineOptions
from datacreate.errors import DatacreateError
from datacreate.finetuning.directory import models_at, read_model
from datacreate.finetuning.evaluate import benchmarks_for, read_test_set
from datacreate.finetuning.rows import Source, read_source, training_set
from datacreate.finetuning.task import Task
from datacreate.locking import held_by
from datacreate.plan import root_and_format
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory, before_a_run
from datacreate.selection.strategies import find_strategy
from datacreate.sweep import cells_of, load_plan
from datacreate.sweep.options import engine_options

_PATIENCE_SECONDS = 30.0
"""How long a server may take over an answer of its self-test."""


def create_job(config: CreateConfig, *, run_dir: Path | None = None, reach: bool = False) -> Job:
    """What `datacreate create` with this configuration needs; an encoder only if texts are compared.

    An example that is {} is not looked at, nor is a `run_dir` that is None. Servers are asked for their
    model only with `reach`.
    """
    found = Findings("create", ("ask",) if config.served else ("create",))
    if config.example:
        try:
            found.good("example", root_and_format(config)[1].notes[0])
        except DatacreateError as error:
            found.bad("example", error, "datacreate schema --help")
    if config.benchmark is not None:
        found.split("example", config.benchmark)
    if config.served:
        models = config.models if "model" in config.model_fields_set else ()
        _servers(found, config, models, reach)
    else:
        for model in config.models:
            found.checkpoint("model", model, "instruct", config, config.adapter, config.count)
        if config.verifier is not None and config.verifier not in config.models:
            other = EngineOptions(engine=config.engine, trust_remote_code=config.trust_remote_code)
            found.checkpoint("verifier", config.verifier, "instruct", other, count=config.count)
    compares = config.semantic is not None
    try:
        chosen = find_strategy(config.strategy)
    except DatacreateError as error:
        found.bad("strategy", error, "datacreate create --help")
    else:
        found.good("strategy", config.strategy)
        compares = compares or chosen.needs_similarity or chosen.grows == "cover"
    if compares:
        found.checkpoint("encoder", config.embedding_model, "encoder")
    if run_dir is not None:
        _run_directory(found, run_dir)
    return found.job()


def _servers(found: Findings, options: EngineOptions, models: Sequence[str], reach: bool) -> None:
    """Are there addresses, and with `reach`, does a server there have each model (any, if none is named)?"""
    try:
        addresses = Addresses(options.urls)
        if not reach:
            fix = f"datacreate doctor --network {found.name}"
            found.noted("servers", f"{addresses.shown}, not asked", fix)
            return
        at_once = options.model_copy(update={"wait": 0.0, "request_timeout": _PATIENCE_SECONDS})
        for model in models or (only_model(at_once, _quiet),):
            with closing(make_engine(served(model), at_once, count=1)) as engine:
                engine.start()
            found.good("servers", f"{addresses.shown}, with {model}")
    except DatacreateError as error:
        found.bad("servers", error, "datacreate serve --help")


def _quiet(text: str) -> None:
    """Waiting is not announced: nobody waits here."""


def _run_directory(found: Findings, path: Path) -> None:
    """Can a run live there, or go on there?"""
    another = "datacreate create --run-dir DIR"
    place = nearest(path)
    run = RunDirectory(path)
    try:
        if not place.is_dir():
            found.blocked("run directory", f"{place} is a file where a folder should be", another)
        elif not writable(place):
            found.blocked("run directory", f"{place} is read-only", another)
        elif path.is_dir() and (holder := held_by(path)):
            found.blocked("run directory", f"{path} is being written by {holder}", another)
        elif run.exists:
            config = run.read_config()
            found.good("run directory", f"{path}: {run.accepted()} of {config.count} examples are there")
        elif place == path.absolute() and any(not before_a_run(each.name) for each in path.iterdir()):
            found.blocked("run directory", f"{path} holds other files and no run", another)
        else:
            found.good("run directory", f"{path} can be made" if place != path.absolute() else str(path))
    except DatacreateError as error:
        found.bad("run directory", error, another)
    except OSError as error:
        found.blocked("run directory", f"{path}: {error.strerror or error}", another)


def train_job(sources: Sequence[str], *, encoder: str) -> Job:
    """What `datacreate train` needs: the encoder, and rows that it can be trained on together."""
    found = Findings("train", ("train",))
    found.checkpoint("encoder", encoder, "encoder")
    read: list[Source] = []
    for name in sources:
        found.things.update({name} & set(load_registry()))
        try:
            source = read_source(name)
        except DatacreateError as error:
            found.bad(name, error, "datacreate train --help")
        else:
            read.append(source)
            found.good(name, f"{len(source.rows):,} rows")
    if read and len(read) == len(sources):
        try:
            rows = training_set(read)
            found.good("rows", f"{len(rows.questions):,} to train on, with {rows.task.described}")
        except DatacreateError as error:
            found.bad("rows", error, "datacreate train --help")
    return found.job()


def evaluate_job(models: Sequence[Path], *, benchmarks: Sequence[str] = ()) -> Job:
    """What `datacreate evaluate` needs: models that are whole, and test sets that their heads can answer."""
    found = Findings("evaluate", ("evaluate",))
    tasks: dict[str, Task] = {}
    for path in models:
        try:
            folders = models_at(path)
        except DatacreateError as error:
            found.bad(str(path), error, "datacreate train --help")
            continue
        for folder in folders:
            try:
                resolve(str(folder.absolute()), "encoder")
                model = read_model(folder)
                for name in benchmarks_for(model, benchmarks):
                    if name not in tasks and found.split("split", name, "test"):
                        tasks[name] = read_test_set(name).task
                    if name in tasks:
                        model.training.task.refuse_other(tasks[name], str(folder), name)
                found.good(str(folder), model.training.task.described)
            except DatacreateError as error:
                found.bad(str(folder), error, "datacreate train --help")
    return found.job()


def sweep_job(plan: str, *, reach: bool = False) -> Job:
    """What the cells of a plan need, each thing once, with how many cells want it.

    Servers are asked for the generators only with `reach`.
    """
    found = Findings("sweep", WORKS)
    try:
        loaded = load_plan(plan)
        cells, options = cells_of(loaded), engine_options(loaded.create)
    except DatacreateError as error:
        found.bad("plan", error, "datacreate sweep --help")
        return found.job()
    kinds = {step.kind for cell in cells for step in cell.steps}
    max_parent_uses = bool(kinds & {"create", "zero-shot"})
    works = (kinds & {"train", "evaluate"}) | (
        {"ask" if options.served else "create"} if max_parent_uses else set()
    )
    found.works = tuple(work for work in WORKS if work in works)
    needs = dict.fromkeys(need for cell in cells for step in cell.steps for need in step.needs)
    wanted = Counter(
        name for cell in cells for name in {need.name for step in cell.steps for need in step.needs}
    )
    found.good("plan", f"{len(cells)} cells, {len(wanted)} checkpoints and benchmarks needed")
    counts = [int(step.grows[-1]) for cell in cells for step in cell.steps if step.kind == "create"]
    count = max(counts, default=1)
    if max_parent_uses and options.served:
        _servers(found, options, loaded.generators, reach)
    for need in needs:
        before = len(found.lines)
        if need.kind == "split" or need.kind == "example":
            found.split(need.kind, need.name, need.split)
        else:
            role = "model" if need.kind == "instruct" else "encoder"
            found.checkpoint(role, need.name, need.kind, options, count=count)
        for place, line in enumerate(found.lines[before:], before):
            if line.state == "red":
                said = f"{line.said} ({wanted[need.name]} of {len(cells)} cells need it)"
                found.lines[place] = replace(line, said=said)
    return found.job()
