"""The dataset card of a run: README.md with the metadata block that the Hugging Face Hub reads.

It tells what was done and, as plainly, what was not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datacreate.checkpoints import UNSEEN
from datacreate.metrics.summary_lines import (
    Measures,
    basis,
    diversity_lines,
    human_name,
    shortcut_lines,
    warnings,
)
from datacreate.runs.config import RunSpec
from datacreate.verification.report import in_sentences


def dataset_card(spec: RunSpec, summary: Mapping[str, Any], measures: Measures | None = None) -> str:
    """The card as Markdown. Text from the example and the model is shown as nothing but text.

    `measures` is the document of `appraisal`; None where nothing was measured.
    """
    return "\n".join(_lines(spec, summary, measures)) + "\n"


def _weights(sha256: str) -> str:
    if sha256.startswith(UNSEEN):
        return "known by the name that its server gave it; its weights were not seen"
    return f"weights sha256 `{sha256[:16]}…`"


def _lines(spec: RunSpec, summary: Mapping[str, Any], measures: Measures | None) -> Iterator[str]:
    accepted = summary["accepted"]
    yield from (
        "---",
        "tags: [synthetic, datacreate]",
        f"size_categories: [{_size_category(accepted)}]",
        "configs: [{config_name: default, data_files: train.jsonl}]",
        "---",
        "",
        f"# {accepted} examples made from one",
        "",
        f"Written by {_code(spec.model)} ({_weights(spec.model_sha256)}) from the",
        f"formatting example below, with the strategy `{spec.strategy}`, method `{spec.method}`,",
        f"seed {spec.seed}.",
        _license(summary.get("license")),
        "",
        *_drawn_from(spec.benchmark),
        _fenced(json.dumps(spec.example, ensure_ascii=False, indent=2), "json"),
    )
    yield from ("", "## How", "", *_how(spec, summary))
    yield from ("", "## Filters and rejects", "", *_filters(summary))
    if summary["labels"]:
        yield from ("", "## Labels", "", *_table(["label", "examples"], summary["labels"]))
    yield from ("", "## Label verification", "", *_verification(summary.get("verification")))
    yield from ("", "## Contamination", "", *_contamination(summary))
    yield from ("", "## Shortcuts", "", *_shortcuts(measures))
    yield from ("", "## Diversity", "", *_diversity(measures))
    yield from ("", "## Depth below the formatting example", "")
    yield from _table(["depth", "examples"], summary["depths"])
    yield from ("", "## Risks and limits", "", *_risks(spec, summary, measures))


def _license(license: str | None) -> str:
    if license is None:
        return "The license of the model is not known here; it may bind what the model wrote."
    return f"The license of the model is {_cell(license)}; it may bind what the model wrote."


def _drawn_from(benchmark: str | None) -> list[str]:
    if benchmark is None:
        return []
    return [f"The formatting example is a row of the benchmark `{benchmark}`, whose license it is under.", ""]


def _how(spec: RunSpec, summary: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"- {spec.num_examples} examples a request, {spec.concurrency} requests out at once, sampling "
        f"`{json.dumps(spec.sampling)}`."
    )
    yield "- Every example is valid under the JSON Schema in `config.json`."
    yield (
        f"- {summary['requests']} requests, {summary['generated_tokens']} tokens written, "
        f"{summary['tokens_per_example']} per accepted example."
    )


def _filters(summary: Mapping[str, Any]) -> Iterator[str]:
    if filters := summary.get("filters"):
        yield "The filters that every example had to pass, in their order:"
        yield ""
        yield from _grid(["filter", "rejected", "settings"], list(map(_filter, filters)))
    else:
        yield (
            "Exact repeats of the example, of a parent or of another example (case, punctuation and spacing "
            "aside) were dropped. No other filter was on."
        )
    yield ""
    if summary["rejected"]:
        yield "All that was written and not accepted:"
        yield ""
        yield from _table(["reason", "items"], summary["rejected"])
    else:
        yield "Nothing was rejected."


def _filter(told: Mapping[str, Any]) -> list[Any]:
    """A row of the table; one that was switched off has no figures."""
    if not told.get("on", True):
        return [_cell(told["name"]), "–", "off"]
    settings = {name: value for name, value in told["settings"].items() if value is not None}
    return [
        _cell(told["name"]),
        told["rejected"],
        ", ".join(f"{name} {_figure(value)}" for name, value in settings.items()),
    ]


def _verification(told: Mapping[str, Any] | None) -> Iterator[str]:
    if not told:
        yield "Labels were not verified."
        return
    yield from in_sentences(told, _code(told["model"]))
    if kept := told.get("kept_by_label"):
        yield from ("", "Kept of each label:", "", *_table(["label", "rows"], kept))
    if warning := told.get("warning"):
        yield from ("", f"**Warning:** {_cell(warning)}.")


def _contamination(summary: Mapping[str, Any]) -> Iterator[str]:
    compared = summary.get("compared_with")
    if not compared:
        yield "The examples were compared with no test set."
        return
    yield "Examples that repeat rows of these files were dropped, as far as the filters above can tell:"
    yield ""
    rows = [[_cell(one["benchmark"]), one["split"], f"`{one['digest'][:16]}…`"] for one in compared]
    yield from _grid(["benchmark", "split", "sha256"], rows)


def _shortcuts(measures: Measures | None) -> Iterator[str]:
    if measures is None:
        yield "Not measured."
        return
    if not measures["shortcuts"]:
        yield f"None measured: {measures['no_shortcuts']}."
        return
    yield "What a model could learn instead of the task: the share of rows that it gets right by that alone."
    yield ""
    human = human_name(measures)
    rows = [
        [line.name, _share(line.ours), _share(line.chance), *([_share(line.human)] if human else [])]
        for line in shortcut_lines(measures)
    ]
    yield from _grid(["shortcut", "this set", "chance", *([human] if human else [])], rows)
    yield ""
    found = warnings(measures)
    yield from [f"- **Warning:** {_cell(one)}." for one in found] or ["None is past what is tolerated."]


def _diversity(measures: Measures | None) -> Iterator[str]:
    lines = diversity_lines(measures) if measures else []
    if not measures or not lines:
        yield "Not measured."
        return
    human = human_name(measures)
    rows = [
        [line.name, line.spelled(line.ours), *([line.spelled(line.human)] if human else [])] for line in lines
    ]
    yield from _grid(["measure", "this set", *([human] if human else [])], rows)
    yield ""
    yield f"{_cell(basis(measures))}."


def _risks(spec: RunSpec, summary: Mapping[str, Any], measures: Measures | None) -> Iterator[str]:
    filters = [one["name"] for one in summary.get("filters") or () if one.get("on", True)]
    yield "A language model wrote these examples, and nobody has read them all."
    yield ""
    yield (
        "- **False statements.** Answers may be wrong and statements untrue, however sure they sound. Do not "
        "take them for facts."
    )
    yield f"- **Labels.** {_labels_risk(spec, summary.get('verification'))}"
    yield (
        "- **Bias.** What the model holds of people, places and trades is in what it wrote, and one "
        "formatting example narrows it further. Bias was not measured, and nothing was taken out for it."
    )
    yield (
        "- **Offence and privacy.** Texts were not searched for insults, dangerous advice, or names and "
        "addresses of living people."
    )
    if not summary.get("compared_with"):
        yield (
            "- **Test sets.** The examples were compared with no test set: a good result on a public "
            "benchmark may be one that was written down here."
        )
    else:
        yield (
            "- **Test sets.** Only those named above were looked at, and a repeat in other words can have "
            "passed; what the model itself was trained on is not known."
        )
    if unseen := [
        said for kind, said in _REPEATS.items() if not any(name.startswith(kind) for name in filters)
    ]:
        yield f"- **Repeats.** Not looked for: {', '.join(unseen)}."
    if measures and warnings(measures):
        yield "- **Shortcuts.** See the warnings above: a model may score well here without the task."
    elif measures is None:
        yield "- **Shortcuts.** Not measured."


def _labels_risk(spec: RunSpec, told: Mapping[str, Any] | None) -> str:
    if not told:
        return "Nobody checked them, and no other model did."
    who = f"{_code(told['model'])}, a model too"
    said = (
        f"They are the ones that {who}, holds for right: its errors are theirs."
        if told["mode"] in _DECIDING
        else f"{who}, was asked for its own answers, and where it disagrees the examples were kept."
    )
    wrote = [writer.model for writer in spec.mixture] or [spec.model]
    same = "It is" if told["model"] in wrote else "It is not"
    return f"{said} {same} {'one of the models' if spec.mixture else 'the model'} that wrote the examples."


_DECIDING = frozenset({"drop", "relabel"})
"""Modes of verification that leave no example whose label the verifier does not hold for right."""


_REPEATS = {
    "near": "examples that differ in a few words",
    "semantic": "examples that say the same in other words",
}
"""Kind of filter -> what may be in the data without it."""


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _figure(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_figure, value))
    return "–" if value is None else f"{value:g}" if isinstance(value, int | float) else _cell(str(value))


def _table(head: list[str], rows: Mapping[str, int]) -> list[str]:
    return _grid(head, [[_cell(name), number] for name, number in rows.items()])


def _grid(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A pipe table; the first column is text, the others figures."""
    body = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|---{'|---:' * (len(head) - 1)}|", *body]


_MARKS = str.maketrans({mark: f"&#{ord(mark)};" for mark in "&|<[*_`"})


def _cell(text: str) -> str:
    """A text as a line or a cell shows it, whatever marks it holds."""
    return " ".join(text.translate(_MARKS).split())


def _code(text: str) -> str:
    """A name in code style, whatever marks it holds; a server says what its model is called."""
    return f"<code>{_cell(text)}</code>" if set(text) & {"`", "\n"} else f"`{text}`"


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
