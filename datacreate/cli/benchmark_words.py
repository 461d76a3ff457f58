"""What `datacreate benchmarks` prints, in words."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from datacreate.benchmarks import Findings, ImportReport, SplitReport, VerifyReport

_SHOWN_ROWS = 5


def print_report(report: ImportReport) -> None:
    """One benchmark's import: a paragraph with its splits."""
    click.echo(f"{report.name}, from {report.source}")
    for split in report.splits:
        click.echo(f"  {split.split:<5}  {_state(split)}")
        if split.findings is not None:
            click.echo(f"         {_shares(split.findings)}")
            for line in _oddities(split.findings):
                click.echo(f"         {line}")
        if split.remark:
            click.echo(f"         {split.remark}")
    if report.refused:
        click.echo("  nothing of it was put in place; --allow-count-mismatch takes it all the same")


def document(report: ImportReport) -> dict[str, Any]:
    """One benchmark's import for machines."""
    splits = []
    for split in report.splits:
        findings = split.findings.model_dump(mode="json") if split.findings else None
        said = {k: v for k, v in vars(split).items() if k != "findings"}
        splits.append({**said, "counts_agree": split.counts_agree, "findings": findings})
    return {
        "name": report.name,
        "source": report.source,
        "refused": report.refused,
        "counts_agree": report.counts_agree,
        "splits": splits,
    }


def shortened(value: Any) -> Any:
    """The same document with long lists of row numbers cut, for a person to read."""
    if isinstance(value, dict):
        return {key: shortened(part) for key, part in value.items()}
    if isinstance(value, list) and len(value) > _SHOWN_ROWS and all(isinstance(n, int) for n in value):
        return f"{_rows(len(value))}: {_numbers(tuple(value))}"
    return value


def verified(report: VerifyReport) -> dict[str, Any]:
    """One verification for machines."""
    return {**asdict(report), "good": report.good}


def verdict(report: VerifyReport) -> str:
    """One verification in a line."""
    if not report.good:
        return f"{report.name}: {report.state}: {'; '.join(report.problems)}"
    without = f", without {', '.join(report.missing)}" if report.missing else ""
    return f"{report.name}: good, {report.hashed_bytes / 1e6:.1f} MB hashed{without}"


def _state(split: SplitReport) -> str:
    if split.findings is None:
        return f"missing (the paper's has {split.expected:,} rows)"
    agrees = "as in the paper" if split.counts_agree else f"NOT the paper's {split.expected:,}"
    return f"{split.findings.rows:,} rows, {agrees}; {split.state}"


def _shares(findings: Findings) -> str:
    # Positions of the right option are shown as #1, #2; labels of a yes/no set as they are.
    names = {label: f"#{label}" if label.isdecimal() else label for label in findings.labels}
    label_ratio = ", ".join(f"{names[label]} {share:.1%}" for label, share in findings.labels.items())
    return f"right answers: {label_ratio}; best constant prediction {findings.constant:.1%}"


def _oddities(findings: Findings) -> list[str]:
    kinds = {
        "with two options the same": findings.repeated_options,
        "whose answer is not an option": findings.answer_not_an_option,
        "asking a question again": findings.repeated_questions,
        "whose question is in the test split, too": findings.in_test,
    }
    return [f"{_rows(len(rows))} {what}: {_numbers(rows)}" for what, rows in kinds.items() if rows]


def _rows(number: int) -> str:
    return f"{number:,} row{'s' if number > 1 else ''}"


def _numbers(rows: tuple[int, ...]) -> str:
    return ", ".join(map(str, rows[:_SHOWN_ROWS])) + (", …" if len(rows) > _SHOWN_ROWS else "")
