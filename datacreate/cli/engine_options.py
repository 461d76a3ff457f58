"""Which engine, which servers, and how a model is loaded: the options of every verb that asks a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from datacreate.engines.settings import EngineOptions

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]


class NumberOrAuto(click.ParamType[int | Literal["auto"]]):
    """A number, or the word auto."""

    name = "number or auto"

    def convert(
        self, value: int | str, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["auto"]:
        if value == "auto":
            return "auto"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is not a valid integer, nor the word auto", param, ctx)


def _engine(*engines: str, help: str) -> Decorator:
    return click.option("--engine", type=click.Choice(engines), default="auto", show_default=True, help=help)


ADAPTER = click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="DIR|FILE.gguf",
    help="A LoRA adapter on top of the model: as PEFT saves it, or as GGUF for a GGUF model.",
)

_LOADING: tuple[Decorator, ...] = (
    click.option("--max-model-len", type=int, help="Context in tokens: a prompt and its answer together."),
    click.option("--max-num-seqs", type=int, help="Requests that a server works on at once."),
    click.option("--tensor-parallel-size", type=int, help="vLLM: GPUs that one model is spread over."),
    click.option("--gpu-memory-utilization", type=float, help="vLLM: share of the GPU's memory to take."),
    click.option("--dtype", help="vLLM: the weights' type in memory.  [default: what this machine has fast]"),
    click.option("--quantization", help="vLLM: how the weights are packed, where it does not see it itself."),
    click.option("--max-num-batched-tokens", type=int, help="vLLM: tokens worked on in one step."),
    click.option("--block-size", type=int, help="vLLM: tokens in one block of the cache."),
    click.option(
        "--kv-cache-gib", type=float, help="vLLM on a CPU: memory for keys and values.  [default: 1]"
    ),
    click.option(
        "--enforce-eager/--compile",
        "enforce_eager",
        default=None,
        help="vLLM: whether the model is compiled first.  [default: on a GPU, or for 500 examples]",
    ),
    click.option(
        "--trust-remote-code",
        is_flag=True,
        help="Let a preset that needs it run Python code of its publisher's.",
    ),
)

_ASKING: tuple[Decorator, ...] = (
    _engine(
        *("auto", "vllm", "llamacpp", "openai"),
        help="Server to start here (auto: what suits this machine), or openai: those of --url.",
    ),
    click.option(
        "--url",
        "urls",
        multiple=True,
        metavar="URL[,URL...]",
        help="OpenAI-compatible servers to ask, or a folder in which servers publish where they are "
        "(`serve --register-dir`). A key is read from $DATACREATE_API_KEY.",
    ),
    click.option(
        "--request-timeout",
        type=float,
        default=300.0,
        show_default=True,
        metavar="SECONDS",
        help="With --url: how long a server may take over one answer.",
    ),
    click.option(
        "--servers",
        type=int,
        default=1,
        show_default=True,
        help="With --url: how many servers to wait for before the first request: how many requests may be "
        "in flight is settled then.",
    ),
    click.option(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="With --url: how long to wait while no server answers; then exit with 75.  "
        "[default: 300; not at the start, unless --url is a folder]",
    ),
    click.option(
        "--replicas",
        type=NumberOrAuto(),
        metavar="N|auto",
        default="auto",
        help="Servers to start for each model, each on its own GPUs.  "
        "[default: one for each GPU that the count keeps busy; 1 on a CPU]",
    ),
    *_LOADING,
)  # fmt: skip


def engine_options(command: F) -> F:
    """The options of verbs that ask a model."""
    return with_options(command, _ASKING)


def serving_options(command: F) -> F:
    """Those of them that `serve` has: how one server of a model is started here."""
    engine = _engine(
        "auto", "vllm", "llamacpp", help="Server to start (auto: what suits this machine and the model)."
    )
    return with_options(command, (engine, *_LOADING))


def with_options(command: F, options: Sequence[Decorator]) -> F:
    """The command with these options before its own, in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def urls_of(given: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses of `--url`, which may hold several each."""
    return tuple(url.strip() for urls in given for url in urls.split(","))


def read_engine_options(settings: dict[str, Any]) -> EngineOptions:
    """Take the engine's options out of what a verb was given; UsageError if they do not go together."""
    from datacreate.engines.settings import EngineOptions

    told = {name: settings.pop(name) for name in EngineOptions.model_fields if name in settings}
    if "urls" in told:
        told["urls"] = urls_of(told["urls"])
    return EngineOptions.of(**told)


def refuse_options(context: click.Context, names: Sequence[str], why: str) -> None:
    """click.UsageError, saying why, if one of these options was given."""
    for option in context.command.params:
        if option.name in names and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]}: {why}")


def refuse_engine_options(context: click.Context, why: str) -> None:
    """The same for all options of an engine."""
    from datacreate.engines.settings import EngineOptions

    refuse_options(context, tuple(EngineOptions.model_fields), why)
