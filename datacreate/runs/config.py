"""What the user asked for, typed; and the part of it that is a run's identity.

Everything in `RunSpec` decides what train.jsonl holds. It is resolved once (window, number of
examples per request) and kept in config.json; a run directory made with another identity is
refused. `count` may grow, and where a run works may change: they are no part of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datacreate.engines.settings import EngineOptions
from datacreate.errors import RunMismatch
from datacreate.filters.settings import FilterSettings
from datacreate.formats.example import Json
from datacreate.verification.scoring import VerifyMode

Method = Literal["datacreate", "paper"]

DEFAULT_MODEL = "qwen2.5-coder-1.5b-instruct"

_OURS_IN_TEMPLATES = {"conversation", "tokenize", "add_generation_prompt", "return_dict", "return_tensors"}


class CreateConfig(EngineOptions):
    """One creation, as the user asks for it. None means: worked out from the rest."""

    flags: ClassVar[dict[str, str]] = {
        **EngineOptions.flags,
        "ranges": "--range",
        "concurrency": "--concurrency",
    }

    example: Path | dict[str, Json] | None = None  # the formatting example, or the file that holds it
    benchmark: str | None = None  # or the benchmark it is drawn from; exactly one of the two
    example_seed: int | None = None  # draws it from the benchmark; None: as `seed`
    count: int = Field(gt=0)  # examples in the finished training set
    run_dir: Path
    strategy: str = "tree"
    model: str | tuple[str, ...] = DEFAULT_MODEL  # preset name or path; several take turns by request
    adapter: Path | None = None  # folder of a LoRA adapter for the model
    method: Method = "datacreate"
    format: str | None = None  # name of a shipped format, or a file
    labels: dict[str, str] = Field(default_factory=dict)  # field -> "a,b,c"
    ranges: dict[str, str] = Field(default_factory=dict)  # field -> "low..high"
    num_examples: int | None = Field(default=None, gt=0)  # asked for in one request
    concurrency: int | None = Field(default=None, gt=0)  # requests out at once; the number of chains
    max_parent_uses: int = Field(default=4, gt=0)  # tree: how often one parent is asked while none is waiting
    seed: int = 42
    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    max_tokens: int | None = Field(default=None, gt=0)  # per request
    encoder: str = "all-mpnet-base-v2"  # for diverse, similar, coverage and --semantic
    label_ratio: dict[str, float] | None = None  # label -> its share of the set; None: all the same
    exact: bool = True  # exact repeats are dropped
    near: float | None = Field(default=None, gt=0, le=1)  # as in FilterSettings; None: off
    semantic: float | None = Field(default=None, gt=0, le=1)
    decontaminate: tuple[str, ...] | None = None  # benchmarks to compare with; None: all that are imported
    decontaminate_near: float | None = Field(default=0.7, gt=0, le=1)
    ngram: int = Field(default=8, ge=2)
    verify: VerifyMode | None = None  # None: drop with fixed labels or a verifier, else off
    verifier: str | None = None  # preset name or path of another checkpoint; None: the same model
    threshold: float | None = Field(default=None, gt=0, le=1)  # the least probability of a right answer
    gate: float | None = Field(default=0.75, ge=0.5, le=1)  # the least AUC of dealt labels; None: no gate
    label_noise_rows: int | None = Field(default=None, gt=0)  # verified examples that the gate looks at
    patience: int | None = Field(default=None, gt=0)  # requests in a row without an accepted example
    chat_template: dict[str, Json] = Field(default_factory=dict)  # keyword arguments of it

    @property
    def models(self) -> tuple[str, ...]:
        """The names or paths of what writes, by their turn."""
        return (self.model,) if isinstance(self.model, str) else self.model

    @model_validator(mode="after")
    def _one_formatting_example(self) -> Self:
        if (self.example is None) == (self.benchmark is None):
            raise ValueError("give either --example FILE or --benchmark NAME: one of them, and not both")
        if self.benchmark is None and self.example_seed is not None:
            raise ValueError(
                "--example-seed draws from a benchmark; give --benchmark NAME instead of --example"
            )
        if self.benchmark is not None and self.format is not None:
            raise ValueError("a benchmark has a format of its own; leave --format out")
        return self

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Self:
        if self.label_ratio is not None and self.method == "paper":
            raise ValueError("--label-ratio: the paper's way deals no labels; leave it or --method paper out")
        if self.method == "paper" and self.changed(("near",)):
            raise ValueError("--near: the paper's way keeps near repeats; leave it or --method paper out")
        if self.method == "paper" and self.changed(("gate",)):
            raise ValueError("--gate: the paper's way deals no labels; leave it or --method paper out")
        if len(self.models) != len(set(self.models)) or not self.models:
            raise ValueError("--model: name each model once")
        if self.adapter is not None and len(self.models) > 1:
            raise ValueError("--adapter: it goes on top of one model; give one --model")
        if taken := _OURS_IN_TEMPLATES & self.chat_template.keys():
            raise ValueError(f"--chat-template: {min(taken)} is not the template's, but set by datacreate")
        if self.verify == "off" and (flag := self.changed(("verifier", "threshold", "gate"))):
            raise ValueError(f"{flag}: with --verify off nothing is verified; leave one of the two out")
        return self


class Verification(BaseModel):
    """How labels are verified: part of what decides a run's result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: VerifyMode
    model: str
    model_sha256: str
    threshold: float
    label_noise_check: float | None  # the least AUC of assigned labels; None: only measured
    label_noise_rows: int
    lettered: bool = False  # labels are asked for by letters: their first tokens are not all different


class Writer(BaseModel):
    """One of several models that take turns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    sha256: str
    sampling: dict[str, Json]


class HeldOutRef(BaseModel):
    """A split of a benchmark that created examples were compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    split: str
    digest: str


class RunSpec(BaseModel):
    """What decides a run's result; the same for every session of a run directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: dict[str, Json]
    format: dict[str, Json]  # the bound format's document
    strategy: str
    method: Method
    model: str  # of several, their names together
    model_sha256: str
    encoder: str | None  # None where the strategy compares nothing
    encoder_sha256: str | None
    seed: int
    num_examples: int
    concurrency: int
    max_parent_uses: int
    sampling: dict[str, Json]
    benchmark: str | None = None  # which the example was drawn from, if it was
    filters: FilterSettings
    compared_with: tuple[HeldOutRef, ...] = ()
    label_ratio: dict[str, float] | None = None
    verification: Verification | None = None
    mixture: tuple[Writer, ...] = ()  # request i is asked of writer i modulo their number; () is one alone
    chat_template: dict[str, Json] = {}  # what the user switched in it

    def refuse_other(self, asked: RunSpec, directory: Path) -> None:
        """Raise RunMismatch, naming what differs, unless `asked` is the same."""
        ours, theirs = self.model_dump(mode="json"), asked.model_dump(mode="json")
        for name in RunSpec.model_fields:
            had, wants = ours[name], theirs[name]
            if _spelled(had) != _spelled(wants):
                raise RunMismatch(
                    f"{directory} was made with another {_difference(name, had, wants)}; "
                    "ask for the same, or take another --run-dir"
                )


def _spelled(value: Json) -> str:
    # Not ==: that takes 1 for true, and overlooks the order of fields, which the model is shown.
    return json.dumps(value)


def _difference(name: str, had: Json, wants: Json) -> str:
    """The innermost setting that differs, with both values if they are short."""
    if isinstance(had, dict) and isinstance(wants, dict):
        for key in (*had, *wants):
            if _spelled(had.get(key)) != _spelled(wants.get(key)):
                return _difference(f"{name}.{key}", had.get(key), wants.get(key))
        return f"order of fields in {name}"
    detail = f": {had!r} there, {wants!r} asked"
    return name + (detail if len(detail) < 160 else "")
