"""The dataset card of a run: README.md with the metadata block that the Hugging Face Hub reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from datacreate.checkpoints.checkpoint import SERVED_AS
from datacreate.filters import FILTERS
from datacreate.messages import markdown, markdown_code, markdown_table, safe_text
from datacreate.metrics import Metrics
from datacreate.runs.config import RunSpec
from datacreate.runs.stats import RunSummary

if TYPE_CHECKING:
    from jinja2 import Template

_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}  # names of the Hub
_MAX_FILES = 20  # documents
_SHOWN_DIGITS = 16  # of a SHA-256

Passage = tuple[str, int | None, int]
"""File, row (of a table) and offset of a passage."""


def dataset_card(
    spec: RunSpec,
    summary: RunSummary,
    metrics: Metrics | None = None,
    sources: Mapping[str, Any] | None = None,
) -> str:
    """The card as Markdown; all text from the example, the models and the server is escaped.

    `metrics` is None if nothing was measured. `sources`: the counts of passages, documents and
    files of a run with a corpus.
    """
    active = {report["name"] for report in summary["filters"] if report["on"]}
    return _template().render(
        spec=spec,
        summary=summary,
        verification=summary["verification"],
        metrics=metrics,
        size_category=Markup(next((name for size, name in _SIZES.items() if summary["accepted"] < size), "n>1M")),
        weights=(
            "known by the name that its server reports; its weights were not checked"
            if spec.model_sha256.startswith(SERVED_AS)
            else f"weights sha256 {spec.model_sha256[:_SHOWN_DIGITS]}…"
        ),
        sampling=Markup(
            ", ".join(
                markdown_code(json.dumps(each.sampling))
                + (f" ({markdown_code(each.model)})" if len(spec.generators) > 1 else "")
                for each in spec.generators
            )
        ),
        examples=[_fenced(json.dumps(each, ensure_ascii=False, indent=2), "json") for each in spec.examples[:3]],
        instruction=_fenced(spec.instruction, "text") if spec.instruction else None,
        filters=[_filter_row(report) for report in summary["filters"]],
        test_sets=[
            [split["name"], split["split"] or "–", f"{split['digest'][:_SHOWN_DIGITS]}…"]
            for split in summary["compared_with"]
        ],
        attributes=[
            [name, value, count] for name, counts in summary["attributes"].items() for value, count in counts.items()
        ],
        unchecked=", ".join(
            each.remaining_if_off for each in FILTERS if each.remaining_if_off and each.name not in active
        ),
        sources=sources,
    )


def source_counts(rows_of_passages: Mapping[Passage, int]) -> dict[str, Any]:
    """The counts of passages, documents and files for the card."""
    files = Counter[str]()
    for (file, _, _), rows in rows_of_passages.items():
        files[file] += rows
    documents = {(file, row) for file, row, _ in rows_of_passages}
    most = [(name, rows, f"{rows / files.total():.0%}") for name, rows in files.most_common(_MAX_FILES)]
    return {"passages": len(rows_of_passages), "documents": len(documents), "files": most}


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("datacreate.runs"),
        autoescape=False,  # `finalize` escapes for Markdown
        finalize=lambda value: value if isinstance(value, Markup) else markdown(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "code": lambda name: Markup(markdown_code(name)),
        "table": lambda columns, rows: Markup(markdown_table(columns, list(rows))),
        "percent": lambda share: f"{share:.0%}",
    }
    return environment.get_template("card.md.j2")


def _filter_row(report: Mapping[str, Any]) -> list[Any]:
    """A row of the table of filters: name, rejected examples, settings."""
    if not report["on"]:
        return [report["name"], "–", "off"]
    shown = [
        f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in report["settings"].items()
        if value is not None
    ]
    return [report["name"], report["rejected"], ", ".join(shown)]


def _fenced(text: str, language: str) -> Markup:
    """A code block that no text in it can end."""
    longest = max((len(run) for run in text.split() if set(run) == {"`"}), default=0)
    fence = "`" * max(3, 1 + longest)
    return Markup(f"{fence}{language}\n{safe_text(text)}\n{fence}")
