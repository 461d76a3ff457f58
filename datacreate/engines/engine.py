"""What differs between engines: how their servers are started, and the requests that they understand.

The module of an engine (llamacpp.py is an example) has a subclass of `Engine`, and its instance is in
`ENGINES` (__init__.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from datacreate.checkpoints.checkpoint import Checkpoint
from datacreate.checkpoints.presets import ServerSettings
from datacreate.errors import EngineError, UsageError
from datacreate.hardware import GIB
from datacreate.messages import Notify, no_notify

_LONG_RUN = 500  # examples

Send = Callable[[str, dict[str, Any] | None], Awaitable[tuple[int, Any]]]
"""Sends a request to a path (POST with a body, else GET); returns the HTTP status, and the JSON or text."""


@dataclass(frozen=True)
class ServerInfo:
    """What a server reports about itself, not checked."""

    version: object
    slots: object = None  # requests that it processes at once
    context: object = None  # tokens of a prompt and its completion


@dataclass(frozen=True)
class Workload:
    """What the servers of a model have to do, and which part of this machine they get."""

    count: int = _LONG_RUN  # examples that the run creates
    models: int = 1  # that run on this machine at once, this one included
    gpus: tuple[str, ...] = ()  # that the servers of this model may use; empty: all
    gpu_share: float | None = None  # of the memory of each GPU, for this model; None: as its settings say
    only_scores: bool = False  # the model scores labels and writes nothing
    notify: Notify = no_notify

    @property
    def is_long(self) -> bool:
        """Whether a server that starts slowly and is then faster saves time."""
        return self.count >= _LONG_RUN


@dataclass(frozen=True)
class GpuNeed:
    """The GPUs that one server of a model needs. Sizes are in GiB, on each of these GPUs."""

    gpus: int  # how many; the weights are split over them
    weights_gib: float  # as estimated
    min_weights_gib: float  # a lower bound: below weights_gib if config.json does not name the type of the weights
    min_gib: float  # weights, the smallest useful KV cache, and what the engine itself needs
    max_share: float  # of a GPU's memory, for all servers on it together


class Engine:
    """An engine: the program of a server. This class itself is for remote servers with an OpenAI-compatible API.

    Subclasses are engines that datacreate starts. They set `name`, `title`, `packages`, `needed_for` and
    `key_variable`, and define `build`, `speed`, `command` and `recognize`; the rest is what they add to the API.
    """

    # How its servers are started
    name = ""  # the value of `--engine`
    title = ""  # in messages
    packages: tuple[str, ...] = ()  # of Python, whose versions are logged; the first is also the module to import
    needed_for = ""  # models and machines, for `doctor`
    key_variable = ""  # the environment variable of its API key
    own_options: tuple[str, ...] = ()  # fields of `RunEngineOptions` that not every engine has
    uses_torch = True  # whether it needs torch; then the installed build must suit this machine

    # The requests that its servers understand
    penalty_field = "repetition_penalty"
    thinking_field: str | None = None  # the field for the most tokens of thinking
    own_schema_field = False  # whether `schema_field` is not the standard; the server tests find out if it is accepted
    ends_long_texts = False  # whether its own `schema_field` limits the length of texts
    test_fields: Mapping[str, Any] = {}  # for the requests of server tests

    def build(self) -> str | None:
        """The installed build, by its option of scripts/setup; None if it is not installed."""
        return None

    def speed(self, *, gguf: bool, long_run: bool) -> Literal["slow", "fast"] | None:
        """How fast it is on this machine with a GGUF file or safetensors; None if it is not installed or cannot
        load it."""
        return None

    def gpu_need(self, checkpoint: Checkpoint, settings: ServerSettings, notify: Notify) -> GpuNeed | None:
        """What a server of the checkpoint needs of its GPUs; None if it reserves no share of their memory.

        EngineError if the model cannot be split over this many GPUs.
        """
        return None

    def command(self, checkpoint: Checkpoint, settings: ServerSettings, work: Workload) -> ServerCommand:
        """The command that serves a checkpoint. EngineError if this machine cannot run it.

        Once the server is ready, GET /health must return 200 without the key.
        """
        raise NotImplementedError

    def count_copies(self, extra_arguments: Sequence[str]) -> int:
        """How many copies of the model a server starts with these arguments of the user (those after --).

        UsageError for arguments that it does not accept.
        """
        refused = f"{extra_arguments[0]}: {self.title}'s server accepts no options after --"
        raise UsageError(f"{refused}; remove them, or use another --engine")

    async def recognize(self, send: Send, model: str) -> ServerInfo | None:
        """What a server reports about itself; None if another engine runs there."""
        return None

    def schema_field(self, schema: dict[str, Any], longest_text: int | None) -> dict[str, Any]:
        """The field that holds the JSON Schema of the completion, and a limit for its texts if the engine has one.

        Models mostly write JSON without spaces, since prompts show it so; but the grammar must allow a space between
        two parts. `","` is one token: a model that chooses only `",` expects a space next, and without it would have
        to continue with a token that it considers almost impossible.
        """
        named = {"name": "examples", "schema": schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": named}}

    def scoring_fields(self, tokens: Sequence[int] | None) -> dict[str, Any]:
        """The fields for the most probable tokens of a completion; `tokens`: those of the choices, if known."""
        return {"logprobs": True, "top_logprobs": 20}  # the most that the API allows

    def text_tokens(self, model: str, text: str) -> dict[str, Any] | None:
        """The body of a /tokenize request for a text without special tokens; None if it has no tokenizer."""
        return None

    async def prompt_tokens(self, send: Send, model: str, prompt: dict[str, Any]) -> dict[str, Any] | None:
        """The body of a /tokenize request for a prompt with its chat template; None if it cannot count its tokens."""
        return None

    async def after_tests(self, send: Send, slots: int) -> None:
        """Prepare a server of this machine that has passed the tests."""


UNKNOWN_ENGINE = Engine()
"""The engine of a server that none of `ENGINES` recognizes."""


@dataclass(frozen=True)
class ServerCommand:
    """How to start one server of a model, without its address and key."""

    engine: Engine
    model: str
    arguments: tuple[str, ...]  # `--host HOST --port PORT` is added
    environment: Mapping[str, str]
    slots: int
    record: Mapping[str, object] = field(default_factory=dict)  # for a run's config.json


def check_memory(name: str, weights: float, cache: float, overhead: float, advice: str) -> None:
    """Raise EngineError, with the numbers in GiB, if a model needs more memory than this machine has free."""
    import psutil

    needed, free = weights + cache + overhead, psutil.virtual_memory().available / GIB
    if needed > free:
        raise EngineError(
            f"{name} needs about {needed:.1f} GiB ({weights:.1f} weights, {cache:.1f} cache, {overhead:.1f} "
            f"overhead), {free:.1f} GiB are free; use a smaller model, or {advice}"
        )
