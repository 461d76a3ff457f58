"""From what the user asked for to what every request of the run will ask: worked out once.

Everything here happens before the model is loaded, so that a wrong setting costs no waiting.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from datacreate.benchmarks import find_benchmark, formatting_example
from datacreate.checkpoints import Checkpoint
from datacreate.engines.base import Engine, Sampling
from datacreate.errors import ExampleError, PromptTooLong
from datacreate.runs.config import CreateConfig, Identity
from datacreate.selection.strategies import Strategy, find_strategy
from datacreate.tasks.example import Example, flaw_in, load_example
from datacreate.tasks.infer import Understood, understand
from datacreate.tasks.layout import Layout
from datacreate.tasks.prompt import chat_prompt

DEFAULT_NUM_EXAMPLES = 5
"""Examples asked for in one request, as in the paper; fewer where they do not fit."""

ANSWER_ROOM = 2
"""How many times as long as the formatting example a new one may be."""

SMALL_ANSWER_TOKENS = 16
"""Room on top of that, so that a three-word example does not cut its children off."""


@dataclass(frozen=True)
class Plan:
    """What a run does, as far as it is decided before the first request."""

    root: Example
    layout: Layout
    strategy: Strategy
    sampling: Sampling
    identity: Identity
    notes: tuple[str, ...]  # what was understood of the example, for the user

    @property
    def improved(self) -> bool:
        """Whether labels are dealt and held to quotas, and truncated answers salvaged."""
        return self.identity.method == "datacreate"


def root_and_format(config: CreateConfig) -> tuple[Example, Understood]:
    """The formatting example and its format.

    Raises ExampleError or FormatError if they are wrong, BenchmarkError if the example is to be
    drawn from a benchmark that is unknown or not here.
    """
    if config.benchmark is not None:
        return _drawn(config, config.benchmark)
    if isinstance(config.example, dict):
        root = Example(config.example)
        if flaw := flaw_in(config.example):  # load_example looks at those from a file
            raise ExampleError(f"the example: {flaw}; mend the example")
    else:
        assert config.example is not None, "CreateConfig has one of the two"
        root = load_example(config.example)
    return root, understand(root, config.format, config.labels, config.ranges)


def _drawn(config: CreateConfig, name: str) -> tuple[Example, Understood]:
    """A row of the benchmark's train split as the formatting example, in the benchmark's own format."""
    benchmark = find_benchmark(name)
    seed = config.seed if config.example_seed is None else config.example_seed
    values, note = formatting_example(benchmark, seed)
    root = Example(values)
    understood = understand(root, benchmark.format_name, config.labels, config.ranges)
    return root, replace(understood, notes=(note, *understood.notes))


def make_plan(
    config: CreateConfig,
    root: Example,
    understood: Understood,
    checkpoint: Checkpoint,
    encoder: Checkpoint | None,
    engine: Engine,
    stored: Identity | None,
) -> Plan:
    """Resolve what was left open, as `stored` has it where the run has begun already.

    The engine is asked for token counts, its capacity and its context, but need not be started.
    Raises PromptTooLong if not even one example fits.
    """
    paper = config.method == "paper"
    layout = Layout(understood.format, "keyed" if paper else "positional")
    asked = config.num_examples or (stored.num_examples if stored else None)
    number, max_tokens = _fit(layout, root, engine, asked)
    if stored and not config.max_tokens:
        max_tokens = stored.sampling["max_tokens"]
    window = (
        1 if paper else config.window or (stored.window if stored else _window(config.count, number, engine))
    )
    sampling = _sampling(config, checkpoint, config.max_tokens or max_tokens, paper)
    identity = Identity(
        example=dict(root.values),
        format=understood.format.document(),
        strategy=config.strategy,
        method=config.method,
        model=checkpoint.name,
        model_sha256=checkpoint.sha256,
        encoder=encoder.name if encoder else None,
        encoder_sha256=encoder.sha256 if encoder else None,
        seed=config.seed,
        num_examples=number,
        window=window,
        asks=config.asks,
        sampling={name: value for name, value in vars(sampling).items() if value is not None},
        benchmark=config.benchmark,
    )
    return Plan(root, layout, find_strategy(config.strategy), sampling, identity, understood.notes)


def _fit(layout: Layout, root: Example, engine: Engine, asked: int | None) -> tuple[int, int]:
    """How many examples one request asks for, and its max_tokens."""
    shown = [{"role": "user", "content": json.dumps(layout.write(root), ensure_ascii=False)}]
    one = ANSWER_ROOM * engine.count_tokens(shown) + SMALL_ANSWER_TOKENS
    # A child may be twice as long as the root when its turn to be the parent comes.
    prompt = engine.count_tokens(chat_prompt(layout, root, asked or DEFAULT_NUM_EXAMPLES)) + one // 2
    for number in [asked] if asked else range(DEFAULT_NUM_EXAMPLES, 0, -1):
        if prompt + number * one <= engine.max_context:
            return number, number * one
    raise PromptTooLong(
        f"a prompt of {prompt} tokens and {asked or 1} new example(s) of up to {one} do not fit the model's "
        f"context of {engine.max_context}; take a shorter example, "
        f"{'a smaller --num-examples, ' if asked else ''}or raise --max-model-len if the model can do more"
    )


def _window(count: int, number: int, engine: Engine) -> int:
    """Three times what the engine holds; but no more requests than the count needs.

    Commits are in order, so an answer that runs to max_tokens holds up all behind it: with twice
    the capacity a quarter of the batch stood empty (ratio to the raw engine 0.81). The second
    bound has small sets, too, grown in several generations.
    """
    return max(1, min(3 * engine.capacity, count // number))


def _sampling(config: CreateConfig, checkpoint: Checkpoint, max_tokens: int, paper: bool) -> Sampling:
    """The user's word first, then the preset's; the paper's way is plain sampling at 1."""
    sampling = Sampling(max_tokens=max_tokens)
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    if checkpoint.preset and not paper:
        recommended = checkpoint.preset.sampling.model_dump(exclude_none=True)
        sampling = replace(sampling, **{name: recommended[name] for name in names if name in recommended})
    told: dict[str, Any] = {
        name: getattr(config, name) for name in names if getattr(config, name) is not None
    }
    return replace(sampling, **told)
