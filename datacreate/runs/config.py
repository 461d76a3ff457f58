"""The settings of a run, and the part of them that decides its result.

Three kinds of types have settings, in all packages:

XOptions  options that commands share, one class for each subject: examples, filters, engines, ...
XConfig   all settings of one command. It inherits its `XOptions`, because command line, environment variables and
          --config files have no groups: a setting is declared and checked once for all commands that have it.
XSpec     settings that decide a result, resolved (a file by its checksum, a default by its value), stored with it

The settings of `create` pass through four objects. `CreateConfig`: what the user gives. `RunInputs`: that, checked,
with what its files have; its `InputSpec` needs no model or server. `RunPlan`: all that is decided before the first
request; its `RunSpec` is that `InputSpec` with what depends on models and servers. `StoredConfig`: the content of
config.json, with that `RunSpec`. A run directory that was made with a different `RunSpec` is refused. `count` may grow,
and engine settings may change between sessions: they are not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from datacreate.corpus import CorpusOptions, CorpusSpec
from datacreate.engines import RunEngineOptions
from datacreate.engines.request import DEFAULT_THINKING
from datacreate.filters import FILTERS, FilterOptions, filters_need_embedder
from datacreate.filters.decontamination import Decontamination
from datacreate.filters.exact import ExactDuplicates
from datacreate.filters.filter import DecontaminationSetSpec
from datacreate.formats import ExampleOptions, FormatOptions, as_tuple
from datacreate.formats.example import Example, Json, canonical_json
from datacreate.runs.attributes import Attributes
from datacreate.selection.strategies import STRATEGIES, find_strategy
from datacreate.settings import FrozenModel, JsonPairs, OrOff, Settings, Shares, setting
from datacreate.verification import VerifyMode

CreateRecipe = Literal["best", "fast", "paper"]

AUTO = "auto"  # the strategy of the recipe
DEFAULT_MODEL = "qwen2.5-coder-1.5b-instruct"

_PAPER_FILTERS = (ExactDuplicates, Decontamination)
_NOT_IN_PAPER = (
    "instruction", "label_ratio", "attributes", "corpus", "label_noise_check", "shots",
    *(name for filter_class in FILTERS if filter_class not in _PAPER_FILTERS for name in filter_class.option_names),
)  # fmt: skip
"""Settings that `--recipe paper` refuses."""

SIZES_BY_EXAMPLE = ("max_tokens", "longest_text")  # sampling settings that follow from the longest example


class ResultOptions(Settings):
    """The options that decide the result and are stored as the user gives them.

    `InputSpec` and `RunSpec` add those that are resolved first.
    """

    strategy: str = setting(
        f"How the next prompt is chosen: {', '.join(STRATEGIES)}; auto: as the recipe says.",
        "strategy",
        default=AUTO,
        shown_default="auto",
    )
    recipe: CreateRecipe = setting(
        "Defaults of --strategy and --verify. best: coverage (tree if the embedding model is not downloaded), answers "
        "verified where possible; fast: tree, not verified; paper: the method of the paper, with tree.",
        "strategy",
        default="best",
    )
    max_parent_uses: int = setting(
        "tree, coverage: how many prompts may have the same parent while no other parent is waiting.",
        "strategy",
        default=8,
        gt=0,
    )
    shots: int = setting(
        "Examples in one prompt: the parent, and others drawn from the formatting examples (if they are too few, from "
        "created ones), labels balanced.",
        "strategy",
        default=1,
        gt=0,
        le=100,
    )
    seed: int = setting(
        "Seed of the choices of datacreate, such as parents; a model writes other texts each time.",
        "sampling",
        default=42,
        ge=-(2**63),
        lt=2**63,
    )
    improves: str | None = None  # `RunSpec.examples_id` of the run that this run of `datacreate improve` started from
    chat_template_kwargs: JsonPairs = setting(
        "Arguments of the model's chat template, such as enable_thinking=false.",
        "engine",
        default={},
        metavar="NAME=VALUE",
    )


def _sampling_setting(help_text: str, server_default: str = "off", **options: Any) -> Any:
    return setting(help_text, "sampling", **{"shown_default": f"the preset's, or {server_default}"} | options)


def _parse_thinking(value: Any) -> Any:
    """`on`, `off` (true and false in YAML) or a number of tokens."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in (None, "on", "off"):
        return value
    if not (str(value).isdecimal() and int(value) > 0):
        raise ValueError("give on, off or a number of tokens")
    return int(value)


class GeneratorOptions(Settings):
    """The models that write the examples, and how they sample (None: as the preset says, else as the server does)."""

    model: str | tuple[str, ...] = setting(
        "Generator, the model that writes: preset (see `models list`), Hub id (org/name), folder or GGUF file; "
        "several share the requests.",
        "engine",
        default=DEFAULT_MODEL,
    )
    adapter: Path | None = setting(
        "LoRA adapter for the model: a PEFT folder, or a GGUF file for a GGUF model.", "engine", metavar="DIR|FILE.gguf"
    )
    thinking: Annotated[Literal["on", "off"] | int | None, BeforeValidator(_parse_thinking)] = _sampling_setting(
        f"Whether a model that can think does so before each answer, and for how many tokens at most (on: "
        f"{DEFAULT_THINKING}); its thoughts are only in the log.",
        metavar="on|off|TOKENS",
        shown_default="off, or on for a model that always thinks",
    )
    temperature: float | None = _sampling_setting("Sampling temperature.", "1", ge=0, le=5)
    top_p: float | None = _sampling_setting(
        "Sample from the most probable tokens that have this probability together.", "1", gt=0, le=1
    )
    top_k: int | None = _sampling_setting("Sample from this many of the most probable tokens.", ge=1)
    min_p: float | None = _sampling_setting(
        "Minimum probability of a token, relative to the most probable one.", ge=0, le=1
    )
    repetition_penalty: float | None = _sampling_setting(
        "Penalty on tokens that occurred before; above 1 it discourages them.", gt=0
    )
    max_tokens: int | None = _sampling_setting(
        "Maximum number of tokens in one completion; give it for texts much longer than the examples.",
        gt=0,
        shown_default="from the longest example",
    )

    @property
    def models(self) -> tuple[str, ...]:
        """The names in --model."""
        return (self.model,) if isinstance(self.model, str) else self.model


class AuxiliaryModelOptions(Settings):
    """The models besides the generators: the verifier of labels, and the embedding model for similarity."""

    verifier: str | None = setting(
        "Model that scores each answer without seeing it: preset, Hub id, folder, GGUF file, or a name on the servers "
        "of --url.",
        "quality",
        metavar="MODEL",
    )
    embedding_model: str = setting(
        "Sentence embedding model for similarity (--semantic; strategies diverse, similar, coverage): preset or "
        "folder.",
        "quality",
        default="all-mpnet-base-v2",
    )


class CreateConfig(
    ResultOptions,
    AuxiliaryModelOptions,
    FilterOptions,
    RunEngineOptions,
    GeneratorOptions,
    FormatOptions,
    CorpusOptions,
    ExampleOptions,
):
    """The settings of `create`; None: chosen automatically. `--help` has the options of the last base first."""

    count: int = setting(
        "Examples in the finished training set; train: as many as the benchmark's train split has.",
        "output",
        default=...,
        gt=0,
        metavar="N|train",
    )
    run_dir: Path = setting(
        "Run directory; the same command resumes the run in it.",
        "output",
        metavar="DIR",
        shown_default="runs/NAME-STRATEGY or runs/NAME-RECIPE; NAME from the example, benchmark, instruction or format",
        validate_default=True,
    )
    num_examples: int | None = setting(
        "Examples per request.", "strategy", gt=0, le=1000, shown_default="5, fewer if they are long"
    )
    concurrency: int | None = setting(
        "Maximum number of requests that are made and not committed yet; random, diverse, similar: not more than "
        "--num-chains.",
        "strategy",
        gt=0,
        shown_default="what the servers can hold",
    )
    num_chains: int | None = setting(
        "random, diverse, similar: independent chains of prompts, with one request at a time each.",
        "strategy",
        gt=0,
        shown_default="as many as have at least 10 requests each",
    )
    label_ratio: Shares | None = setting(
        "Share of each label in the set; the shares add up to 1.",
        "quality",
        metavar="LABEL=0.7,...",
        shown_default="equal shares",
    )
    attributes: Path | None = setting(
        "YAML file with dimensions and their values: each request is written for one value of each, in exact shares.",
        "input",
        metavar="FILE.yaml",
    )
    verify: VerifyMode | None = setting(
        "What to do after a model has scored each answer without seeing it: only log the scores (keep), drop "
        "or relabel the examples for which another answer is more probable, or keep its probabilities as soft labels.",
        "quality",
        shown_default="drop with the recipe best or --verifier, if the answers can be scored; else off",
    )
    label_noise_check: Annotated[float | None, OrOff] = setting(
        "Minimum concordance (0.5: chance; with two labels the AUC) of assigned labels and the verifier in the first "
        "examples; below it, texts are written first and labeled by the verifier.",
        "quality",
        default=0.6,
        ge=0.5,
        le=1,
        metavar="SHARE|off",
    )

    @property
    def needs_embedder(self) -> bool:
        """Whether the strategy or a filter compares embeddings; the strategy is not `AUTO`."""
        return filters_need_embedder(self) or find_strategy(self.strategy).needs_embedder

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Resolve `--count train` and the default of `--run-dir`."""
        benchmark = values.get("benchmark")
        if values.get("count") == "train":
            if benchmark is None:
                raise ValueError("--count train: that is the size of a benchmark; give --benchmark NAME")
            from datacreate.benchmarks import find_benchmark

            values = values | {"count": find_benchmark(benchmark).rows["train"]}
        if values.get("run_dir") is None:
            recipe = values.get("recipe") or cls.model_fields["recipe"].default
            method = recipe if values.get("strategy") in (None, AUTO) else values["strategy"]
            values = values | {"run_dir": Path("runs", f"{_run_name(values)}-{method}")}
        return values

    @model_validator(mode="after")
    def _check_conflicts(self) -> Self:
        has_task = self.instruction is not None and self.first_changed_flag(FormatOptions.model_fields)
        if not (self.example or self.benchmark or has_task):
            raise ValueError(
                "give --example FILE or --benchmark NAME; without an example give --instruction TEXT, and --format or "
                "field names (--inputs, --answer, --labels)"
            )
        if self.benchmark is not None and (flag := self.first_changed_flag(FormatOptions.model_fields)):
            raise ValueError(f"{flag}: a benchmark has its own format; remove {flag}")
        not_in_paper = (*_NOT_IN_PAPER, *(["max_parent_uses"] if self.strategy in (AUTO, "tree") else []))
        if self.recipe == "paper" and (flag := self.first_changed_flag(not_in_paper)):
            raise ValueError(f"{flag}: --recipe paper has no such step; remove one of the two")
        if not self.models:
            raise ValueError("--model: give at least one")
        if self.adapter is not None and len(self.models) > 1:
            raise ValueError("--adapter: an adapter belongs to one model; give one --model")
        if self.verify == "off" and (flag := self.first_changed_flag(("verifier", "label_noise_check"))):
            raise ValueError(f"{flag}: --verify off verifies nothing; remove one of the two")
        return self


def _run_name(values: Mapping[str, Any]) -> str:
    """The start of the default --run-dir. Raises ValueError for an example that is not from a file."""
    instruction = str(values.get("instruction"))
    if benchmark := values.get("benchmark"):
        return str(benchmark)
    if sources := as_tuple(values.get("example")):
        if not isinstance(sources[0], (str, Path)):
            raise ValueError("--run-dir: give a run directory; only an example from a file has a default one")
        return Path(sources[0]).stem
    path = instruction[1:] if instruction.startswith("@") else values.get("format")
    return Path(path or "").stem or "instruction"


class VerificationSpec(FrozenModel):
    """How labels are verified, as a part of `RunSpec`."""

    mode: VerifyMode
    model: str
    model_sha256: str
    label_noise_check: float | None  # the minimum concordance; None: it is only measured
    label_noise_rows: int  # the maximum number of examples that the check uses
    scored_by_letter: bool = False  # options are scored by their letters, not by their first tokens


class GeneratorSpec(FrozenModel):
    """One of several models that write examples, as a part of `RunSpec`."""

    model: str
    sha256: str
    sampling: dict[str, Json]


class InputSpec(ResultOptions):
    """The part of `RunSpec` that needs no model and no server."""

    examples: tuple[dict[str, Json], ...]  # the formatting examples
    format: dict[str, Json]  # the document of the specialized format
    instruction: str | None = None
    benchmark: str | None = None  # from which the formatting examples were drawn
    filters: FilterOptions
    compared_with: tuple[DecontaminationSetSpec, ...] = ()
    label_ratio: dict[str, float] | None = None
    corpus: CorpusSpec | None = None
    attributes: Attributes = ()


_NOT_COMPARED = {
    *("strategy", "recipe", "seed", "improves", "examples", "format", "benchmark", "compared_with"),
    *("model", "model_sha256", "embedding_model_sha256", "mixture", "num_examples", "concurrency", "num_chains"),
    *("filters", "sampling", "verification"),  # compared field by field
}
"""Fields of `RunSpec` that a condition names, that differ between its samples, or that follow from others."""


class RunSpec(InputSpec):
    """The settings that decide a run's result; the same for every session of a run directory."""

    model: str  # the name of the generator; if there are several, all names in one text
    model_sha256: str
    embedding_model: str | None  # None if the run needs no embeddings
    embedding_model_sha256: str | None
    num_examples: int
    concurrency: int
    num_chains: int | None = None  # None for strategies without chains
    sampling: dict[str, Json]
    verification: VerificationSpec | None = None
    mixture: tuple[GeneratorSpec, ...] = ()  # all generators if there are several, else ()

    @property
    def generators(self) -> tuple[GeneratorSpec, ...]:
        """The models that write examples, even if there is only one."""
        only = GeneratorSpec(model=self.model, sha256=self.model_sha256, sampling=self.sampling)
        return self.mixture or (only,)

    @property
    def examples_id(self) -> str:
        """The id of the formatting example; if there are several, one id for all of them."""
        return Example(self.examples[0] if len(self.examples) == 1 else {"examples": list(self.examples)}).id

    @property
    def compared_settings(self) -> tuple[str, ...]:
        """The settings that are not defaults, as `near=0.7`; two runs of one condition should not differ in them."""
        values = self.model_dump(mode="json", exclude=_NOT_COMPARED, exclude_defaults=True)
        values |= self.filters.model_dump(mode="json", exclude={"decontaminate"}, exclude_defaults=True)
        values |= {name: value for name, value in self.sampling.items() if name not in SIZES_BY_EXAMPLE}
        if checks := self.verification:
            values |= {"verify": checks.mode, "verifier": checks.model, "label_noise_check": checks.label_noise_check}
        return tuple(f"{name}={canonical_json(value)}" for name, value in sorted(values.items()) if value is not None)

    @property
    def max_uncommitted(self) -> int:
        """The maximum number of uncommitted requests: with chains, one for each chain."""
        return min(self.concurrency, self.num_chains or self.concurrency)
