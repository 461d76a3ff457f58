"""`datacreate create` and `datacreate preview`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from datacreate.cli.checks import ShareOrOff, check_options, names_of
from datacreate.cli.engine_options import ADAPTER, engine_options, urls_of, with_options
from datacreate.cli.fields import LABELS, RANGES, pairs

F = TypeVar("F", bound=Callable[..., Any])


VERIFY = click.option(
    "--verify",
    type=click.Choice(["off", "keep", "drop", "relabel", "soft"]),
    help="A model answers each example blind: only note it, drop what it does not hold for right, "
    "relabel it, or keep its probabilities as soft labels.  "
    "[default: drop where labels are fixed or a verifier is named, else off]",
)

_OPTIONS = [
    click.option(
        "--example",
        type=click.Path(path_type=Path),
        help="JSON file with one object: the formatting example.",
    ),
    click.option(
        "--benchmark",
        metavar="NAME",
        help="Instead of --example: draw it from this benchmark's train split (see `benchmarks list`).",
    ),
    click.option(
        "--example-seed", type=int, help="Draws the example from the benchmark.  [default: as --seed]"
    ),
    click.option(
        "--strategy",
        default="tree",
        show_default=True,
        help="naive, random, diverse, similar, tree or coverage: who is asked next.",
    ),
    click.option(
        "--model",
        multiple=True,
        help="Preset name (see `models list`), checkpoint folder or GGUF file; several take turns.  "
        "[default: qwen2.5-coder-1.5b-instruct]",
    ),
    ADAPTER,
    click.option(
        "--format",
        "format",
        help="Task format: a shipped name or a JSON file; otherwise worked out from the example.",
    ),
    LABELS,
    RANGES,
    click.option(
        "--num-examples", type=int, help="Examples asked for in one request.  [default: 5, fewer if long]"
    ),
    click.option(
        "--concurrency",
        "concurrency",
        type=int,
        help="Requests out at once, and so the chains that grow side by side.  [default: worked out]",
    ),
    click.option(
        "--max-parent-uses",
        type=int,
        default=4,
        show_default=True,
        help="tree, coverage: how often a parent is asked while no other waits.",
    ),
    click.option(
        "--seed", type=int, default=42, show_default=True, help="Of every random choice of the run."
    ),
    click.option("--temperature", type=float, help="[default: the preset's, or 1]"),
    click.option("--top-p", type=float, help="[default: the preset's, or 1]"),
    click.option("--top-k", type=int, help="[default: the preset's, or off]"),
    click.option("--min-p", type=float, help="[default: the preset's, or off]"),
    click.option("--repetition-penalty", type=float, help="[default: the preset's, or off]"),
    click.option(
        "--max-tokens", type=int, help="Most tokens of one answer.  [default: from the example's length]"
    ),
    click.option(
        "--label-ratio",
        metavar="LABEL=0.7,...",
        help="Share of the set that each label has; they add up to 1.  [default: all the same]",
    ),
    VERIFY,
    click.option(
        "--verifier",
        metavar="MODEL",
        help="Another model to verify with: preset name, folder or GGUF file.  "
        "[default: the one that writes]",
    ),
    click.option(
        "--threshold",
        type=float,
        help="The least probability that the verifier must give an answer.  "
        "[default: 0.5; of more than three labels 1.5 over their number]",
    ),
    click.option(
        "--gate",
        type=ShareOrOff(),
        default="0.75",
        show_default=True,
        metavar="AUC|off",
        help="The least agreement of dealt labels with the verifier; below it the text comes first.",
    ),
    click.option(
        "--method",
        type=click.Choice(["datacreate", "paper"]),
        default="datacreate",
        show_default=True,
        help="`paper` switches every improvement off, to compare.",
    ),
    click.option(
        "--patience",
        type=int,
        help="Requests in a row without an accepted example before giving up, over and above "
        "--concurrency.  [default: 64]",
    ),
    click.option(
        "--chat-template",
        multiple=True,
        metavar="NAME=VALUE",
        help="A switch of the model's chat template, such as enable_thinking=false.",
    ),
]


def creation_options(command: F) -> F:
    """The options that `create` and `preview` share."""
    return _with(command, _OPTIONS)


def looked_at_options(command: F) -> F:
    """The same but for --verify, which is a switch of `doctor`'s own."""
    return _with(command, [option for option in _OPTIONS if option is not VERIFY])


def _with(command: F, options: Sequence[Callable[[Any], Any]]) -> F:
    return with_options(engine_options(check_options(near="off")(command)), options)


def number_or_train(given: str) -> int | Literal["train"]:
    """What --count takes; click.BadParameter for anything else."""
    if given == "train":
        return "train"
    try:
        return int(given)
    except ValueError:
        raise click.BadParameter(f"{given!r} is not a valid integer, nor the word train") from None


@click.command()
@click.option(
    "--count",
    type=number_or_train,
    metavar="N|train",
    required=True,
    help="Examples in the finished training set; `train`: as many as the benchmark's train split has.",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    required=True,
    help="Where the run lives; the same command goes on from there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@creation_options
def create(as_json: bool, **settings: Any) -> None:
    """Make a training set of exactly COUNT examples from one example.

    The example is yours, or a row of a benchmark's training set, which is never counted in.
    Stopped (Ctrl-C, a time limit, a full disk), it exits with 75; the same command goes on. A
    larger --count extends a finished run.

    \b
    datacreate create --example mine.json --count 100 --run-dir runs/mine
    datacreate create --example nli.json --labels label=entailment,neutral,contradiction \\
        --count 300 --strategy diverse --run-dir runs/nli
    datacreate create --benchmark csqa --count train --run-dir runs/csqa
    """
    from datacreate.cli.progress import CreationProgress
    from datacreate.create import create as create_
    from datacreate.dataset_metrics import DatasetMetrics
    from datacreate.runs.config import CreateConfig
    from datacreate.runs.directory import RunDirectory

    settings["count"] = number_of(settings["count"], settings["benchmark"])
    config = CreateConfig.of(**read_options(settings))
    with CreationProgress() as progress:
        summary = create_(config, progress=progress, compute_metrics=DatasetMetrics().run)
    if as_json:
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    from datacreate.cli.show import print_samples, print_summary

    print_samples(list(islice(RunDirectory(config.run_dir).examples(), 3)))
    print_summary(summary)
    click.echo(f"\n{config.run_dir / 'train.jsonl'}")


@click.command()
@click.option("--count", type=int, default=5, show_default=True, help="Examples to show.")
@click.option("--json", "as_json", is_flag=True, help="Print the examples as JSON lines.")
@creation_options
def preview(as_json: bool, **settings: Any) -> None:
    """Show a few examples as `create` would make them; write nothing."""
    from datacreate.cli.progress import CreationProgress
    from datacreate.cli.show import print_samples
    from datacreate.create import create as create_
    from datacreate.runs.config import CreateConfig
    from datacreate.runs.directory import RunDirectory

    with tempfile.TemporaryDirectory(prefix="datacreate-preview-") as folder, CreationProgress() as progress:
        config = CreateConfig.of(run_dir=Path(folder), **read_options(settings))
        create_(config, progress=progress)
        examples = list(RunDirectory(config.run_dir).examples())
    if as_json:
        for values in examples:
            click.echo(json.dumps(values, ensure_ascii=False))
        return
    print_samples(examples)


def read_options(settings: dict[str, Any]) -> dict[str, Any]:
    """What the options say, as CreateConfig takes it; click.UsageError for one that cannot be read."""
    models = {"model": settings["model"]} if settings["model"] else {}
    switches = pairs(settings["chat_template"], "--chat-template")
    rest = {name: value for name, value in settings.items() if name != "model"}
    told = {
        "chat_template": {name: json_or_text(value) for name, value in switches.items()},
        "labels": pairs(settings["labels"], "--labels"),
        "ranges": pairs(settings["ranges"], "--range"),
        "decontaminate": names_of(settings["decontaminate"]),
        "label_ratio": shares_of(settings["label_ratio"]),
        "urls": urls_of(settings["urls"]),
    }
    return rest | models | told


def shares_of(given: str | None) -> dict[str, float] | None:
    """`yes=0.7,no=0.3` as a mapping; click.UsageError for anything else."""
    if given is None:
        return None
    label_ratio: dict[str, float] = {}
    for part in given.split(","):
        label, equals, share = part.rpartition("=")
        try:
            label_ratio[label.strip()] = float(share)
        except ValueError:
            equals = ""
        if not (label.strip() and equals):
            raise click.UsageError(f"--label-ratio {given}: write it as LABEL=0.7,LABEL=0.3")
    return label_ratio


def number_of(count: int | Literal["train"], benchmark: str | None) -> int:
    """The count as a number: `train` is the size of the benchmark's train split by the registry."""
    if count != "train":
        return count
    if benchmark is None:
        raise click.UsageError(
            "--count train is the size of a benchmark's train split; give --benchmark NAME"
        )
    from datacreate.benchmarks import find_benchmark

    return find_benchmark(benchmark).rows["train"]


def json_or_text(value: str) -> Any:
    """`false`, `3` or `"text"` as JSON; anything else as it is."""
    try:
        return json.loads(value)
    except ValueError:
        return value
