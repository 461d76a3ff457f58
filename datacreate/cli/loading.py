"""How vLLM is to load a model: the options of every verb that has it do so."""

from __future__ import annotations

from typing import Literal

import click


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


REPLICAS = click.option(
    "--replicas",
    type=NumberOrAuto(),
    metavar="N|auto",
    default="auto",
    help="Copies of the model side by side, each on its own GPUs, or cores.  "
    "[default: one for each GPU that the count keeps busy; 1 on a CPU]",
)

LOADING = [
    click.option("--max-model-len", type=int, help="Context in tokens that the engine is loaded with."),
    click.option("--max-num-seqs", type=int, help="Requests the engine, or each server, works on at once."),
    click.option("--tensor-parallel-size", type=int, help="GPUs that one copy of the model is spread over."),
    click.option("--gpu-memory-utilization", type=float, help="Share of the GPU's memory that vLLM takes."),
    click.option("--dtype", help="Weights' type in memory, e.g. bfloat16."),
    click.option("--quantization", help="How the weights are packed, where vLLM does not see it itself."),
    click.option("--max-num-batched-tokens", type=int, help="Tokens the engine works on in one step."),
    click.option("--block-size", type=int, help="Tokens in one block of the cache."),
    click.option("--kv-cache-gib", type=float, help="Memory for keys and values on a CPU.  [default: 1]"),
    click.option(
        "--enforce-eager/--compile",
        "enforce_eager",
        default=None,
        help="Whether the model is compiled first.  [default: on a GPU, or for 500 examples]",
    ),
]
