"""From what the user asked for to what every request of the run will ask: worked out once.

What needs no model is checked first, so that a wrong setting costs no waiting. The engine is asked for
token counts only where nothing is stored: a finished run starts no server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from datacreate.benchmarks import find_benchmark, formatting_example
from datacreate.checkpoints import Checkpoint
from datacreate.engines.base import Engine, Sampling
from datacreate.errors import ExampleError, PromptTooLong, UsageError
from datacreate.filters.held_out import HeldOutSet, held_out_sets
from datacreate.filters.registry import FilterSettings
from datacreate.formats.example import Example, find_unsupported_value, load_example
from datacreate.formats.infer import InferredFormat, infer_format
from datacreate.formats.serialization import Layout
from datacreate.formats.task_format import TaskFormat, answer_text
from datacreate.prompts.generation import chat_prompt
from datacreate.prompts.label_scoring import MAX_LETTERED, can_score_labels
from datacreate.run_models import Engines, Models, verify_mode
from datacreate.runs.config import (
    CreateConfig,
    HeldOutRef,
    IdentitySettings,
    RunSpec,
    SamplingOptions,
    Verification,
    Writer,
)
from datacreate.selection.strategies import Strategy, find_strategy
from datacreate.verification.scoring import default_threshold

DEFAULT_NUM_EXAMPLES = 5
"""Examples asked for in one request, as in the paper; fewer where they do not fit."""

ANSWER_ROOM = 2
"""How many times as long as the formatting example a new one may be."""

SMALL_ANSWER_TOKENS = 16
"""Room on top of that, so that a three-word example does not cut its children off."""


LABEL_NOISE_ROWS = 200
"""Verified examples that the gate looks at: the AUC is then known to 0.04 or so."""

LEAST_LABEL_NOISE_ROWS = 40
"""What a small set's gate looks at, where half its count is less than that."""


@dataclass(frozen=True)
class Plan:
    """What a run does, as far as it is decided before the first request."""

    root: Example
    layout: Layout
    strategy: Strategy
    samplings: tuple[Sampling, ...]  # of the models that write, by their turn
    spec: RunSpec
    held_out_sets: tuple[HeldOutSet, ...]  # what created examples are compared with
    notes: tuple[str, ...]  # what was understood of the example and what is to be known, for the user

    @property
    def improved(self) -> bool:
        """Whether labels are dealt and held to quotas, and truncated answers salvaged."""
        return self.spec.method == "datacreate"


def root_and_format(config: CreateConfig) -> tuple[Example, InferredFormat]:
    """The formatting example and its format.

    Raises ExampleError or FormatError if they are wrong, BenchmarkError if the example is to be
    drawn from a benchmark that is unknown or not here.
    """
    if config.benchmark is not None:
        return _drawn(config, config.benchmark)
    if isinstance(config.example, dict):
        root = Example(config.example)
        if flaw := find_unsupported_value(config.example):  # load_example looks at those from a file
            raise ExampleError(f"the example: {flaw}; fix the example")
    else:
        assert config.example is not None, "CreateConfig has one of the two"
        root = load_example(config.example)
    return root, infer_format(root, config.format, config.labels, config.ranges)


def _drawn(config: CreateConfig, name: str) -> tuple[Example, InferredFormat]:
    """A row of the benchmark's train split as the formatting example, in the benchmark's own format."""
    benchmark = find_benchmark(name)
    seed = config.seed if config.example_seed is None else config.example_seed
    values, note = formatting_example(benchmark, seed)
    root = Example(values)
    inferred = infer_format(root, benchmark.format_name, config.labels, config.ranges)
    return root, replace(inferred, notes=(note, *inferred.notes))


def make_plan(
    config: CreateConfig,
    root: Example,
    inferred: InferredFormat,
    models: Models,
    engines: Engines,
    stored: RunSpec | None,
) -> Plan:
    """Resolve what was left open, as `stored` has it where the run has begun already.

    The engines (which may be one) are asked for token counts, capacity and context. Raises PromptTooLong
    if not even one example fits, BenchmarkError if there is no such benchmark to compare with, UsageError
    for shares of other labels than the format's.
    """
    encoder, paper = models.encoder, config.method == "paper"
    layout = Layout(inferred.format, "keyed" if paper else "positional")
    label_ratio = _shares(config, inferred.format)
    met = held_out_sets(_names(config, stored))
    asked = config.num_examples or (stored.num_examples if stored else None)
    number = stored.num_examples if stored and asked == stored.num_examples else None
    number = number or min(_fit(layout, root, engine, asked)[0] for engine in engines.writers)
    samplings = tuple(
        _sampling(
            config, checkpoint, _most_tokens(config, stored, turn) or _fit(layout, root, engine, number)[1]
        )
        for turn, (checkpoint, engine) in enumerate(zip(models.writers, engines.writers, strict=True))
    )
    told = config.concurrency or (stored.concurrency if stored else None)
    concurrency = told or (1 if paper else _concurrency(config.count, number, engines.writers))
    verification = _verification(config, inferred, models, layout, engines.verifier, stored)
    spec = RunSpec(
        **config.subset(IdentitySettings),
        example=dict(root.values),
        format=inferred.format.document(),
        model=models.name,
        model_sha256=models.sha256,
        embedding_model=encoder.name if encoder else None,
        embedding_model_sha256=encoder.sha256 if encoder else None,
        num_examples=number,
        concurrency=concurrency,
        sampling=_told(samplings[0]),
        benchmark=config.benchmark,
        filters=FilterSettings(
            **config.subset(FilterSettings)
            | {"decontaminate": tuple(dict.fromkeys(each.benchmark for each in met))}
        ),
        compared_with=tuple(HeldOutRef(**vars(each)) for each in met),
        label_ratio=label_ratio,
        verification=verification,
        mixture=tuple(
            Writer(model=each.name, sha256=each.sha256, sampling=_told(sampling))
            for each, sampling in zip(models.writers, samplings, strict=True)
            if len(samplings) > 1
        ),
    )
    strategy = find_strategy(config.strategy)
    notes = (*inferred.notes, *_who_judges(spec))
    return Plan(root, layout, strategy, samplings, spec, met, notes)


def _who_judges(spec: RunSpec) -> Iterator[str]:
    """A line where labels are judged by a model that wrote them."""
    how = spec.verification
    if how and how.model_sha256 in {spec.model_sha256, *(each.sha256 for each in spec.mixture)}:
        yield (
            f"{how.model} verifies what it writes itself: another model would be a better judge "
            "(--verifier MODEL)"
        )


def _told(sampling: Sampling) -> dict[str, Any]:
    return {name: value for name, value in vars(sampling).items() if value is not None}


def _most_tokens(config: CreateConfig, stored: RunSpec | None, turn: int) -> int | None:
    """max_tokens as told, or as the run began; None if it is to be worked out."""
    if config.max_tokens or stored is None:
        return config.max_tokens
    began = stored.mixture[turn].sampling if turn < len(stored.mixture) else stored.sampling
    return int(began["max_tokens"])


def _names(config: CreateConfig, stored: RunSpec | None) -> Sequence[str] | Literal["all"]:
    """The benchmarks to compare with: as told, else as the run began, else all that are here."""
    if config.decontaminate is not None:
        return config.decontaminate
    if stored:
        return stored.filters.decontaminate or ()
    return () if config.method == "paper" else "all"


def _verification(
    config: CreateConfig,
    inferred: InferredFormat,
    models: Models,
    layout: Layout,
    verifier: Engine,
    stored: RunSpec | None,
) -> Verification | None:
    """How labels are verified, if they are."""
    mode, model = verify_mode(config, inferred), models.verifier
    if mode == "off" or model is None:
        return None
    labels = inferred.format.labels
    gated = mode != "keep" and layout.supports_pseudo_labels and config.method == "datacreate"
    known = stored.verification if stored else None
    rows = config.label_noise_rows or (known.label_noise_rows if known else _label_noise_rows(config.count))
    if stored:  # one that was not verified is refused for that, and no server is started for it
        lettered = bool(known and known.lettered)
    else:
        lettered = bool(labels) and not verifier.tells_apart([answer_text(label) for label in labels or ()])
    if not can_score_labels(inferred.format, lettered=lettered):
        if config.verify is None and config.verifier is None:
            return None
        raise UsageError(
            f"--verify {mode}: {model.name} cannot tell the {len(labels or ())} labels apart by their first "
            f"tokens, nor by letters, of which there are {MAX_LETTERED}; take another --verifier, "
            "or --verify off"
        )
    return Verification(
        mode=mode,
        model=model.name,
        model_sha256=model.sha256,
        threshold=config.threshold or (known.threshold if known else default_threshold(len(labels or ()))),
        label_noise_check=config.label_noise_check if gated else None,
        label_noise_rows=rows,
        lettered=lettered,
    )


def _label_noise_rows(count: int) -> int:
    return min(LABEL_NOISE_ROWS, max(LEAST_LABEL_NOISE_ROWS, count // 2))


def _shares(config: CreateConfig, format: TaskFormat) -> dict[str, float] | None:
    """What share of the set each label has, in the order of the labels; None if all have the same."""
    if config.label_ratio is None:
        return None
    names = [answer_text(label) for label in format.labels or ()]
    if not names:
        raise UsageError(
            f"--label-ratio: the format {format.name} has no fixed labels; give them with "
            "--labels FIELD=a,b,c"
        )
    if unknown := [name for name in config.label_ratio if name not in names]:
        raise UsageError(f"--label-ratio: no label {unknown[0]!r}; labels are {', '.join(names)}")
    label_ratio = {name: config.label_ratio.get(name, 0.0) for name in names}
    # Asked this way round, since a share may be no number at all.
    if any(share < 0 for share in label_ratio.values()) or not abs(sum(label_ratio.values()) - 1) <= 1e-6:
        raise UsageError(
            f"--label-ratio: {sum(label_ratio.values()):g} in all; shares are positive and add up to 1"
        )
    return label_ratio


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


def _concurrency(count: int, number: int, engines: Sequence[Engine]) -> int:
    """Three times what the engines hold; but no more requests than the count needs.

    Commits are in order, so an answer that runs to max_tokens holds up all behind it: with twice
    the capacity a quarter of the batch stood empty (ratio to the raw engine 0.81). The second
    bound has small sets, too, grown in several generations.
    """
    return max(1, min(3 * sum(engine.capacity for engine in engines), count // number))


def _sampling(config: CreateConfig, checkpoint: Checkpoint, max_tokens: int) -> Sampling:
    """The user's word first, then the preset's; the paper's way is plain sampling at 1."""
    sampling = Sampling(max_tokens=max_tokens)
    names = [name for name in SamplingOptions.model_fields if name != "max_tokens"]
    if checkpoint.preset and config.method != "paper":
        recommended = checkpoint.preset.sampling.model_dump(exclude_none=True)
        sampling = replace(sampling, **{name: recommended[name] for name in names if name in recommended})
    return replace(sampling, **config.given(names))
