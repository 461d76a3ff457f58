"""Engines: OpenAI-compatible servers, local or remote, that generate text and score labels.

A run has a `ModelClient` for each model; it sends requests to all servers of the model. A `ServerSource` says where
these servers are: `RemoteServers` are those of `--url`, `LocalServers` are started by this process. A `ServerPool`
chooses a `Server` for each request, and repeats a request that failed. What differs between vLLM, llama.cpp and other
servers, their commands and their requests, is an `Engine`. `ENGINES` lists those that datacreate can start;
any other server is used through the standard API. This module also has the options: which engine and servers, and how a
model is loaded.

In reading order:

  factory.py         settings of a run -> its clients; GPUs of several servers; `serve`
  request.py         Request, Completion; the tests that a server must pass before a run
  model_client.py    ModelClient: submits requests, and returns completions
  server_pool.py     ServerPool: chooses a server; retries, lost servers
  server.py          Server: HTTP, recognition, tests, tokenizer
  chat_api.py        Request -> JSON body, JSON response -> Completion; errors of servers
  engine.py          Engine: what differs between engines
  vllm.py            vLLM: command line, environment and memory of its server, its requests
  llamacpp.py        the same for llama.cpp, and the process of its server
  server_sources.py  RemoteServers: the servers of --url; LocalServers: starts, restarts and stops servers here
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import model_validator

from datacreate.checkpoints.presets import LaunchOptions, engine_setting
from datacreate.engines.engine import Engine
from datacreate.engines.llamacpp import LLAMACPP
from datacreate.engines.vllm import VLLM
from datacreate.settings import CommaList, Settings

ENGINES: dict[str, Engine] = {each.name: each for each in (VLLM, LLAMACPP)}

if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal["auto", *ENGINES]

_OWN_OPTIONS = [name for each in ENGINES.values() for name in each.own_options]
_SERVER_SIDE = ("engine", "adapter", *_OWN_OPTIONS)  # options of servers that are started
_CLIENT_SIDE = ("servers", "wait")  # options for remote servers


class _ServerOptions(Settings):
    """Which servers are started or used. They stand before the `LaunchOptions` in `--help`."""

    engine: EngineName = engine_setting("Server to start; auto: what suits this machine.", default="auto")
    url: Annotated[tuple[str, ...], CommaList] = engine_setting(
        "Running OpenAI-compatible servers, or a folder in which servers register (`serve --register-dir`); "
        "$DATACREATE_API_KEY holds their key.",
        default=(), metavar="URL[,URL...]",
    )  # fmt: skip
    request_timeout: float | None = engine_setting(
        "Seconds that a server may take for one response.",
        gt=0, le=86400, metavar="SECONDS", shown_default="300; 1800 on this machine without a GPU",
    )  # fmt: skip
    servers: int = engine_setting(
        "With --url: number of servers to wait for before the first request; --concurrency is then chosen to "
        "suit them.",
        default=1, gt=0,
    )  # fmt: skip
    wait: float | None = engine_setting(
        "With --url: seconds to wait while no server answers, before exit code 75.",
        ge=0, le=10**7, metavar="SECONDS",
        shown_default="300; at the start 0, unless --url is a folder or --servers is above 1",
    )  # fmt: skip
    replicas: int | Literal["auto"] = engine_setting(
        "Servers to start for each model, each on its own GPUs.", default="auto", metavar="N|auto",
        shown_default="auto: one for each GPU that the count keeps busy; 1 on a CPU",
    )  # fmt: skip


class EngineOptions(LaunchOptions, _ServerOptions):
    """Which engine, which servers, and how a model is loaded. None: chosen automatically."""

    trust_remote_code: bool = engine_setting("Allow Python code of the model's publisher to run.", default=False)

    @property
    def uses_remote_servers(self) -> bool:
        """Whether the servers are those of `--url`, instead of local ones that the command starts."""
        return bool(self.url)

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.replicas != "auto" and self.replicas < 1:
            raise ValueError("--replicas: give a number of at least 1, or auto")
        if self.uses_remote_servers and (flag := self.first_changed_flag(_SERVER_SIDE)):
            raise ValueError(f"{flag}: remote servers have loaded their models; set it where they are started")
        if not self.uses_remote_servers and (flag := self.first_changed_flag(_CLIENT_SIDE)):
            raise ValueError(f"{flag} only applies to remote servers; name them with --url, or remove it")
        if self.engine != "auto" and (problem := self.unsupported(ENGINES[self.engine])):
            raise ValueError(problem)
        return self

    def unsupported(self, engine: Engine) -> str | None:
        """The message about the first changed option that the engine does not have; None if there is none."""
        flag = self.first_changed_flag(name for name in _OWN_OPTIONS if name not in engine.own_options)
        if flag is None:
            return None
        return f"{flag}: {engine.title} has no such setting; remove it, or use another --engine"


class RunEngineOptions(EngineOptions):
    """The settings of the engines of a run, which may have a verifier of its own besides the generators."""

    verifier_quantization: str | None = engine_setting("vLLM: --quantization of the --verifier.", metavar="METHOD")
    verifier_tensor_parallel_size: int | None = engine_setting("vLLM: GPUs that the --verifier is split over.", gt=0)

    @property
    def for_verifier(self) -> EngineOptions:
        """The settings of the verifier: those that load a local generator do not apply to it."""
        if self.uses_remote_servers:
            return self
        return EngineOptions(
            engine=self.engine,
            request_timeout=self.request_timeout,
            quantization=self.verifier_quantization,
            tensor_parallel_size=self.verifier_tensor_parallel_size,
        )
