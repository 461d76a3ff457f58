"""What a user may say about engines: the same options for every command that asks a model."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from datacreate.errors import UsageError
from datacreate.settings_errors import SettingsError

EngineKind = Literal["auto", "vllm", "llamacpp", "openai"]

_SERVER_SIDE = (
    "adapter", "tensor_parallel_size", "gpu_memory_utilization", "dtype", "quantization",
    "max_num_batched_tokens", "block_size", "enforce_eager", "kv_cache_gib", "trust_remote_code",
)  # fmt: skip
"""Settings of a model that datacreate loads itself."""

VLLM_ONLY = ("replicas", *_SERVER_SIDE[1:])

_CLIENT_SIDE = ("request_timeout", "servers", "wait")
"""Settings of asking servers that exist."""


class EngineOptions(BaseModel):
    """Which engine, which servers, and how a model is loaded. None means: worked out from the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    flags: ClassVar[dict[str, str]] = {"enforce_eager": "--enforce-eager/--compile", "urls": "--url"}

    engine: EngineKind = "auto"  # openai if there are urls, else what suits this machine
    urls: tuple[str, ...] = ()  # of OpenAI-compatible servers, or folders in which servers publish theirs
    request_timeout: float = Field(default=300.0, gt=0, le=86400)  # seconds without any answer of a server
    servers: int = Field(default=1, gt=0)  # that are waited for before the first request
    wait: float | None = Field(default=None, ge=0, le=10**7)  # seconds without any server before it stops
    replicas: int | Literal["auto"] = "auto"  # servers started for each model, each on its own GPUs
    max_model_len: int | None = Field(default=None, gt=0)  # tokens
    max_num_seqs: int | None = Field(default=None, gt=0)  # requests that one server works on at once
    tensor_parallel_size: int | None = Field(default=None, gt=0)  # GPUs
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    dtype: str | None = None
    quantization: str | None = None
    max_num_batched_tokens: int | None = Field(default=None, gt=0)
    block_size: int | None = Field(default=None, gt=0)
    enforce_eager: bool | None = None
    kv_cache_gib: float | None = Field(default=None, gt=0)  # vLLM on a CPU
    trust_remote_code: bool = False  # lets a preset that says trust_remote_code run its publisher's code

    @property
    def served(self) -> bool:
        """Whether the models run behind servers that exist."""
        return self.engine == "openai" or (self.engine == "auto" and bool(self.urls))

    @model_validator(mode="after")
    def _one_kind_of_engine(self) -> Self:
        if self.served and not self.urls:
            raise ValueError("--engine openai: say where with --url http://HOST:PORT, or a folder of servers")
        if self.urls and not self.served:
            raise ValueError(f"--url: that is for running servers; remove it or --engine {self.engine}")
        if self.served and self.replicas != "auto":
            raise ValueError("--replicas: start more servers instead, and name them with --url")
        if self.served and (flag := self.changed(_SERVER_SIDE)):
            raise ValueError(f"{flag}: the server loads its model itself; set this when you start the server")
        if not self.served and (flag := self.changed(_CLIENT_SIDE)):
            raise ValueError(f"{flag}: that is for running servers; name them with --url, or remove it")
        if self.engine == "llamacpp" and (flag := self.changed(VLLM_ONLY)):
            raise ValueError(f"{flag}: only vLLM has that setting; remove it or --engine llamacpp")
        if self.replicas != "auto" and self.replicas < 1:
            raise ValueError("--replicas: give a number from 1 on, or auto")
        return self

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """These settings, checked; UsageError, in one line, if one of them is wrong."""
        try:
            return cls(**settings)
        except ValidationError as error:
            raise UsageError(SettingsError.first(error).on_command_line(cls.flags)) from None

    def changed(self, names: tuple[str, ...]) -> str | None:
        """The flag of the first of these settings that differs from its default."""
        for name in names:
            field = type(self).model_fields.get(name)
            if field is not None and getattr(self, name) not in (None, field.default):
                return self.flags.get(name, f"--{name.replace('_', '-')}")
        return None

    def given(self, names: Any) -> dict[str, Any]:
        """Those of the settings of these names that were given."""
        return {name: value for name in names if (value := getattr(self, name, None)) is not None}
