"""The dataset card of a run: README.md with the metadata block that the Hugging Face Hub reads."""

from __future__ import annotations

import json
from typing import Any

from datacreate.runs.config import Identity


def dataset_card(identity: Identity, summary: dict[str, Any]) -> str:
    """The card as Markdown. Text from the example and the model is shown in fenced blocks only."""
    rejected = summary["rejected"]
    lines = [
        "---",
        "tags: [synthetic, datacreate]",
        f"size_categories: [{_size_category(summary['accepted'])}]",
        "configs: [{config_name: default, data_files: train.jsonl}]",
        "---",
        "",
        f"# {summary['accepted']} examples made from one",
        "",
        f"Written by `{identity.model}` (weights sha256 `{identity.model_sha256[:16]}…`) from the",
        f"formatting example below, with the strategy `{identity.strategy}`, method `{identity.method}`,",
        f"seed {identity.seed}.",
        "",
        *_drawn_from(identity.benchmark),
        _fenced(json.dumps(identity.example, ensure_ascii=False, indent=2), "json"),
        "",
        "## How",
        "",
        f"- {identity.num_examples} examples a request, {identity.window} requests out at once, sampling "
        f"`{json.dumps(identity.sampling)}`.",
        "- Every example is valid under the JSON Schema in `config.json`; exact repeats of the example, of a "
        "parent or of another example (case, punctuation and spacing aside) were dropped.",
        f"- {summary['requests']} requests, {summary['generated_tokens']} tokens written, "
        f"{summary['tokens_per_example']} per accepted example.",
        "",
        "## Rejected",
        "",
        *(_table(["reason", "items"], rejected) if rejected else ["Nothing."]),
    ]
    if summary["labels"]:
        lines += ["", "## Labels", "", *_table(["label", "examples"], summary["labels"])]
    lines += [
        "",
        "## Depth below the formatting example",
        "",
        *_table(["depth", "examples"], summary["depths"]),
    ]
    lines += [
        "",
        "## Risks and limits",
        "",
        "A language model wrote these examples, and nobody has read them all. Answers may be wrong, "
        "statements false, and the biases of the model are in them. Labels were not verified, near- "
        "duplicates in other words were not looked for, and nothing was compared with any test set. The "
        "licence of the model may bind what it wrote.",
        "",
    ]
    return "\n".join(lines)


def _drawn_from(benchmark: str | None) -> list[str]:
    if benchmark is None:
        return []
    return [f"The formatting example is a row of the benchmark `{benchmark}`, whose licence it is under.", ""]


def _table(head: list[str], rows: dict[str, int]) -> list[str]:
    body = [f"| {_cell(name)} | {number} |" for name, number in rows.items()]
    return [f"| {' | '.join(head)} |", "|---|---:|", *body]


_MARKS = str.maketrans({mark: f"&#{ord(mark)};" for mark in "&|<[*_`"})


def _cell(text: str) -> str:
    """A label as a cell shows it, whatever marks it holds."""
    return " ".join(text.translate(_MARKS).split())


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in text.split() if set(run) == {"`"}), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _size_category(number: int) -> str:
    for bound, name in (
        (1_000, "n<1K"),
        (10_000, "1K<n<10K"),
        (100_000, "10K<n<100K"),
        (1_000_000, "100K<n<1M"),
    ):
        if number < bound:
            return name
    return "n>1M"
