"""Reads plans, which declare the grid of a sweep in YAML, and checks them before anything runs."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from datacreate.benchmarks import Benchmark, find_benchmark, load_registry
from datacreate.checkpoints.presets import find_preset
from datacreate.corpus.documents import find_files
from datacreate.engines import RunEngineOptions
from datacreate.engines.server_sources import is_path
from datacreate.errors import BenchmarkError, CheckpointError, UsageError
from datacreate.files import expand_home, read_yaml, shipped
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import HUMAN, MIXED, ZERO_SHOT
from datacreate.finetuning.train import MIN_ROWS_TO_SPLIT, TrainConfig
from datacreate.formats.row_file import is_row_file
from datacreate.messages import did_you_mean
from datacreate.runs.attributes import read_attributes
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from datacreate.selection.strategies import STRATEGIES
from datacreate.settings import Settings, SettingsProblem

HUMAN_FULL = "human-full"

CONDITIONS = (HUMAN, HUMAN_FULL, *STRATEGIES, *(MIXED + name for name in STRATEGIES))

CREATE_OPTIONS = set(CreateConfig.model_fields) - set(
    "example example_limit benchmark example_seed count run_dir strategy model format labels range seed "
    "improves".split()
)
HYPERPARAMETER_OPTIONS = set(Hyperparameters.model_fields) - {"name"} | {"recipe"}
TRAIN_OPTIONS = {"model_selection", "validation", "device_batch_size", "nproc"}
"""The options that a plan may set; the grid sets all others."""

VARIANT_OPTIONS = CREATE_OPTIONS - set(RunEngineOptions.model_fields)
"""The options of `create` that a variant may set; engine options are those of all cells, which share servers."""

_LISTS = "benchmarks conditions generators encoders test example_seeds train_seeds sizes".split()
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]


def short_name(model: str) -> str:
    """A checkpoint in file names: its preset's name, or the last part of its path or Hub id."""
    return re.sub(r"[^\w.+-]+", "_", Path(model).name)


def _file(path: str, info: ValidationInfo) -> str:
    """The absolute path of a path that is relative to the plan file."""
    return str(Path((info.context or {}).get("folder", "."), expand_home(path)).resolve())


def _with_absolute_paths(options: dict[str, Any], names: Collection[str], info: ValidationInfo) -> dict[str, Any]:
    """The options; those of `names` that are paths are made absolute, except empty ones, which are refused later."""
    return {
        name: _file(value, info) if name in names and value and isinstance(value, str) else value
        for name, value in options.items()
    }


def _model(name: str, info: ValidationInfo, *, check: bool = True) -> str:
    """The name of a checkpoint; a path is made absolute. `check`: ValueError if it is not a path, Hub id or preset."""
    path = Path(_file(name, info))
    if name.startswith((".", "~", os.sep)) or name.endswith(".gguf") or ("/" in name and path.is_dir()):
        return str(path)
    if not check or "/" in name:
        return name
    try:
        return find_preset(name).name
    except CheckpointError as error:
        raise ValueError(str(error)) from None


def _servers(url: str, info: ValidationInfo) -> str:
    """An address, or the absolute path of a folder in which servers register."""
    path = _file(url, info)
    return path if url and (is_path(url) or Path(path).is_dir()) else url


def _create_options(options: dict[str, Any], info: ValidationInfo, *, names: set[str]) -> dict[str, Any]:
    """Options of `create`, of which a plan may set `names`: converted, with paths made absolute.

    Raises ValueError, also for files that are missing or wrong.
    """
    _check_names(options, names)
    absolute = _with_absolute_paths(options, ("adapter", "attributes"), info)
    urls = options.get("url")
    if isinstance(urls, (str, list, tuple)):
        urls = urls.split(",") if isinstance(urls, str) else urls
        absolute["url"] = [_servers(str(url), info) for url in urls]
    if "embedding_model" in options:
        absolute["embedding_model"] = _model(str(options["embedding_model"]), info)
    if "verifier" in options:  # a server may have a model of any name
        absolute["verifier"] = _model(str(options["verifier"]), info, check="url" not in options)
    corpus = options.get("corpus")
    paths = [corpus] if corpus and isinstance(corpus, str) else corpus
    if isinstance(paths, (list, tuple)):
        absolute["corpus"] = [_file(path, info) if path and isinstance(path, str) else path for path in paths]
    converted = _converted_create(absolute)
    _check_files(converted)
    return converted


def _converted_create(options: dict[str, Any]) -> dict[str, Any]:
    """Options of `create`, converted. Raises ValueError."""
    return _converted(CreateConfig, options, benchmark="any", count=1, run_dir=Path())


def _check_files(options: Mapping[str, Any]) -> None:
    """Raise ValueError if a file that these options of `create` name is missing or wrong."""
    try:
        if attributes := options.get("attributes"):
            read_attributes(attributes)
        if corpus := options.get("corpus"):
            find_files(corpus)
    except UsageError as error:
        raise ValueError(str(error)) from None
    adapter = options.get("adapter")
    if adapter and not adapter.exists():
        raise ValueError(f"--adapter {adapter}: no such folder or file")
    for name in options.get("decontaminate") or ():
        if name != "all" and name not in load_registry() and not (name and Path(name).exists()):
            raise ValueError(f"--decontaminate {name}: no such file, and no benchmark of that name")


def _train_options(options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Options of `train`, converted, with paths made absolute. Raises ValueError, also for a missing file."""
    _check_names(options, HYPERPARAMETER_OPTIONS | TRAIN_OPTIONS)
    values = _converted_train(_with_absolute_paths(options, ("validation",), info))
    file = values.get("validation")
    if file and not (is_row_file(file) or RunDirectory(file).exists):
        raise ValueError(f"--validation {file}: no such file{', run or data set' if file.is_dir() else ''}")
    return {"recipe": values.pop("name"), **values} if "name" in values else values


def _converted_train(options: dict[str, Any]) -> dict[str, Any]:
    """Options of `train`, converted. Raises ValueError."""
    hyperparameters, others = split_train_options(options)
    return _converted(Hyperparameters, hyperparameters) | _converted(TrainConfig, others, sources=("",), out=Path())


def split_train_options(train: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of `train`, split into fields of Hyperparameters and fields of TrainConfig."""
    hyperparameters = {name: value for name, value in train.items() if name in HYPERPARAMETER_OPTIONS}
    if "recipe" in hyperparameters:
        hyperparameters = {"name": hyperparameters.pop("recipe"), **hyperparameters}
    others = {name: value for name, value in train.items() if name not in HYPERPARAMETER_OPTIONS}
    return hyperparameters, others


def _check_names(options: dict[str, Any], names: set[str]) -> None:
    """Raise ValueError if an option is none of the `names`."""
    for name in options:
        if name not in names and name in RunEngineOptions.model_fields:
            raise ValueError(f"{name}: an engine option; put it under the plan's `create`")
        if name not in names:
            raise ValueError(f"{name}: no such option, or the plan sets it{did_you_mean(str(name), names)}")


def _converted(model: type[Settings], options: dict[str, Any], **required: Any) -> dict[str, Any]:
    """The values of options as the model converts them, in the order of its fields. Raises ValueError."""
    try:
        converted = model.of(**required, **options)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return {name: getattr(converted, name) for name in model.model_fields if name in options}


CreateValues = Annotated[dict[Any, Any], AfterValidator(partial(_create_options, names=CREATE_OPTIONS))]
VariantValues = Annotated[dict[Any, Any], AfterValidator(partial(_create_options, names=VARIANT_OPTIONS))]
TrainValues = Annotated[dict[Any, Any], AfterValidator(_train_options)]


class Variant(Settings):
    """A condition that a plan defines: a strategy with further options of `create` and `train`."""

    strategy: str
    improve: bool = False  # the second half of the rows is created by `improve`
    create: VariantValues = Field(default={})
    train: TrainValues = Field(default={})

    @field_validator("strategy")
    @classmethod
    def _check_strategy(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise ValueError(f"no strategy {name!r}{did_you_mean(name, STRATEGIES)}")
        return name


class SweepPlan(Settings):
    """A grid: benchmarks x conditions x generators x example seeds, x encoders x sizes x train seeds.

    Paths of checkpoints, adapter, attributes, corpus and validation are absolute; in the file they are relative to it.
    """

    name: str = Field(pattern=r"^\w[\w.-]*$")  # default: the name of the file
    description: str = ""
    benchmarks: tuple[str, ...] = Field(min_length=1)
    variants: dict[str, Variant] = Field(default={})  # further conditions
    conditions: tuple[str, ...] = Field(min_length=1)
    create: CreateValues = Field(default={})  # further options of `create`
    generators: tuple[str, ...] = ()  # instruct checkpoints; with `url` in create, names of served models
    example_seeds: tuple[Seed, ...] = Field(default=(42,), min_length=1)  # of example and human sample
    count: int | Literal["train"] = "train"  # rows per set; train: as many as that split has
    encoders: tuple[str, ...] = ()  # to fine-tune; none: sets are created and nothing is trained
    sizes: tuple[int | Literal["all"], ...] = Field(default=("all",), min_length=1)  # rows to train on
    train_seeds: tuple[Seed, ...] = Field(default=(1, 2, 3), min_length=1)
    train: TrainValues = Field(default={})  # further options of `train`
    test: tuple[str, ...] = ()  # test sets; none: the benchmark and those out of distribution
    keep_weights: bool = False  # of evaluated models

    def variant(self, condition: str) -> Variant | None:
        """The strategy and options of the created rows of a condition; None if it has no created rows."""
        name = condition.removeprefix(MIXED)
        return self.variants.get(name) or (Variant(strategy=name) if name in STRATEGIES else None)

    def rows(self, benchmark: Benchmark) -> int:
        return benchmark.rows["train"] if self.count == "train" else self.count

    def tests(self, benchmark: Benchmark) -> tuple[str, ...]:
        """Test sets for models of this benchmark: the default, or those of `test` that fit their head."""
        if not self.test:
            return (benchmark.name, *benchmark.out_of_distribution)
        head = (benchmark.head, benchmark.options)
        named = map(find_benchmark, self.test)
        return tuple(test.name for test in named if (test.head, test.options) == head)

    @field_validator("benchmarks", "test")
    @classmethod
    def _check_benchmarks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(find_benchmark(name).name for name in names)
        except BenchmarkError as error:
            raise ValueError(str(error)) from None

    @field_validator("variants")
    @classmethod
    def _check_variants(cls, variants: dict[str, Variant]) -> dict[str, Variant]:
        for name in variants:
            if name in (*CONDITIONS, ZERO_SHOT):
                what = "strategy" if name in STRATEGIES else "condition"
                raise ValueError(f"{name!r} is a {what}; choose another name")
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise ValueError(f"{name!r}: use letters, digits, _, - and . only")
        return variants

    @field_validator("conditions")
    @classmethod
    def _check_conditions(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        variants = info.data.get("variants")
        if variants is None:  # they are wrong
            return names
        conditions = [*CONDITIONS, *variants, *(MIXED + name for name in variants)]
        for name in names:
            if name not in conditions:
                raise ValueError(f"no condition {name!r}{did_you_mean(name, conditions)}; see docs/sweeps.md")
        return names

    @field_validator("generators", "encoders")
    @classmethod
    def _check_models(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        options = select_engine_options(info.data.get("create", {}))
        served = info.field_name == "generators" and options.uses_remote_servers
        models = tuple(_model(name, info, check=not served) for name in names)
        if len({short_name(name) for name in models}) < len(set(models)):
            raise ValueError("two checkpoints have the same folder name; rename one of the folders")
        return models

    @field_validator("count", "sizes", mode="before")
    @classmethod
    def _check_rows(cls, value: object, info: ValidationInfo) -> object:
        word = "train" if info.field_name == "count" else "all"
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if number != word and (type(number) is not int or number < 1):
                raise ValueError(f"{number!r} is neither a positive number of rows nor the word {word}")
        return value

    @field_validator(*_LISTS)
    @classmethod
    def _check_distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if repeated := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"{repeated[0]} is listed twice; list it once")
        return values

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        for name, values in self.variants.items():
            try:
                key = "create"
                _converted_create({**self.create, **values.create, "strategy": values.strategy})
                key = "train"
                _converted_train({**self.train, **values.train})
            except ValueError as error:
                raise ValueError(f"variants.{name}.{key}: with `{key}` of the plan: {error}") from None
        for condition in self.conditions:
            if condition not in (HUMAN, HUMAN_FULL) and not self.generators:
                raise ValueError(f"generators: the condition {condition} needs a model; name at least one")
            variant = self.variant(condition)
            improves = variant is not None and variant.improve
            is_trained = improves or condition not in (*STRATEGIES, *self.variants)
            if is_trained and not self.encoders:
                raise ValueError(f"encoders: the condition {condition} needs at least one to train")
            smallest = min(self.rows(find_benchmark(name)) for name in self.benchmarks)
            if improves and smallest < 2 * MIN_ROWS_TO_SPLIT:
                raise ValueError(f"count: `improve` needs a count of {2 * MIN_ROWS_TO_SPLIT} or more")
        for size in self.sizes:
            if size != "all" and self.count != "train" and size > self.count:
                raise ValueError(f"sizes: {size} is more than the count of {self.count}; lower it, or raise count")
        for name in self.benchmarks:
            if not self.tests(find_benchmark(name)):
                raise ValueError(f"test: none of these fits the head of a model for {name}")
        return self


def select_engine_options(create: dict[str, Any]) -> RunEngineOptions:
    """The engine options among these options of `create`."""
    names = RunEngineOptions.model_fields
    return RunEngineOptions(**{name: value for name, value in create.items() if name in names})


def load_plan(name_or_path: str) -> SweepPlan:
    """The plan in a file, or a shipped one by its name.

    Raises UsageError, in one line that names the file and the key.
    """
    path = expand_home(name_or_path)
    if not path.is_file():
        plans = {file.stem: file for file in sorted(shipped("data", "plans").glob("*.yaml"))}
        if name_or_path not in plans:
            hint = did_you_mean(name_or_path, plans) or f"; shipped are {', '.join(plans)}"
            raise UsageError(f"{name_or_path}: no such file, and no shipped plan{hint}")
        path = plans[name_or_path]
    try:
        document = read_yaml(path)
        if not isinstance(document, dict):
            raise UsageError(f"plan {path}: not a mapping of settings; see docs/sweeps.md")
        values = {"name": path.stem, **{str(key): value for key, value in document.items()}}
        return SweepPlan.model_validate(values, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise UsageError(f"plan {path}: {_first_error(error)}") from None
    except ValueError as error:
        raise UsageError(f"plan {path}: {error}") from None


def _first_error(error: ValidationError) -> str:
    """The first problem in one line."""
    problem = SettingsProblem.first(error)
    if problem.error_type == "extra_forbidden":
        model = SweepPlan if len(problem.path) == 1 else Variant
        return f"{problem.key}: no such key{did_you_mean(str(problem.path[-1]), model.model_fields)}"
    if not problem.path:  # a contradiction; the message names the keys
        return problem.why
    return f"{problem.key}: {'this key is required' if problem.error_type == 'missing' else problem.remedy}"
