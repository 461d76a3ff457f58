"""The statistics of a run, updated with every commit."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from datacreate.filters.registry import filter_report
from datacreate.formats.example import Json, field_at, shorten
from datacreate.formats.reject import Reject, RejectReason
from datacreate.formats.schema_utils import schema_at
from datacreate.formats.task_format import TaskFormat
from datacreate.runs.config import RunSpec
from datacreate.runs.decisions import Decision, ReviewStats, Sample, review_fields
from datacreate.runs.log import Commit, LogRecord, SessionStart
from datacreate.verification.label_noise import LabelNoiseCheck
from datacreate.verification.scoring import Probabilities, Scored

_MAX_SHALLOW_SHARE = 0.5  # largest share of children of the formatting example without a warning
_MIN_REQUESTS = 20  # a set that fewer requests can write is too small to be deep

RunSummary = dict[str, Any]
"""The content of summary.json; `RunStats.summary` declares its keys."""


@dataclass
class RunStats:
    """The counts of a run so far, and its label-noise check, by which `Acceptance` decides about examples.

    The same log gives the same numbers.
    """

    spec: RunSpec
    format: TaskFormat
    accepted: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    thinking_tokens: int = 0  # among the generated ones
    seconds: float = 0.0
    requests_since_accepted: int = 0  # the latest ones, without an accepted example
    rejects: Counter[RejectReason] = field(default_factory=Counter)
    depths: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    by_generator: Counter[int] = field(default_factory=Counter)  # accepted examples by index of the generator
    last_rejects: deque[Reject] = field(default_factory=lambda: deque(maxlen=3))
    waiting: int = 0  # examples that wait for the label-noise check
    scored: int = 0  # examples that the verifier scored, without those that wait
    scoring_tokens: int = 0
    assigned: int = 0  # scored examples that were written for a label
    agreed: int = 0  # assigned ones whose label is the most probable
    kept: int = 0  # by the verifier, before quotas
    _clock: float | None = None  # time of the session's start or last commit

    @cached_property
    def attributes(self) -> dict[str, Counter[str]]:
        """How many accepted examples have each value of each dimension: dimension -> value -> count."""
        return {each.name: Counter(dict.fromkeys(each.shares, 0)) for each in self.spec.attributes}

    @cached_property
    def label_noise_check(self) -> LabelNoiseCheck | None:
        """The label-noise check; None without fixed labels or verification."""
        verification, labels = self.spec.verification, self.format.labels
        if verification is None or not labels:
            return None
        is_range = "minimum" in schema_at(self.format.schema, self.format.roles.answer or ())
        max_rows, min_concordance = verification.label_noise_rows, verification.label_noise_check
        return LabelNoiseCheck(labels, max_rows, min_concordance, is_range=is_range)

    @cached_property
    def review(self) -> ReviewStats:
        return ReviewStats(self.format.roles.answer)

    def add_record(self, record: LogRecord) -> None:
        match record:
            case Commit():
                self._add_commit(record)
            case SessionStart():  # the time since the last session does not count
                self._clock = record.started
                self.requests_since_accepted = 0
            case Decision():
                for values, sign in ((record.removed, -1), (record.added, 1)):
                    if values:
                        self._count([values], record.depth, record.generator, record.attributes, sign)
                self.review.add_decision(record)
            case Sample():
                self.review.begin_sample(record)

    def _add_commit(self, commit: Commit) -> None:
        self.requests += not commit.released
        self._count(commit.accepted, commit.parent_depth + 1, commit.generator, commit.attributes, 1)
        if commit.accepted or commit.waiting:
            self.requests_since_accepted = 0
        else:
            self.requests_since_accepted += not commit.released
        self.prompt_tokens += commit.prompt_tokens
        self.generated_tokens += commit.generated_tokens
        if not commit.released:  # logs from before December 2026 repeat the number of the first commit there
            self.thinking_tokens += commit.thinking_tokens
        self.scoring_tokens += commit.scoring_tokens
        self.waiting += -len(commit.scored) if commit.released else len(commit.waiting)
        scored = list(commit.scored)
        if commit.released:  # it may end with examples that were not verified, since the count was reached
            del scored[len(scored) - sum(each.reason is RejectReason.NOT_NEEDED for each in commit.rejects) :]
        for result in scored:
            if self.label_noise_check and not commit.released:
                self.label_noise_check.add(result)
            if not commit.waiting:
                self._add_decided(result)
        self.rejects.update(reject.reason for reject in commit.rejects)
        self.last_rejects.extend(commit.rejects)
        if self._clock is not None:
            self.seconds += max(0.0, commit.time - self._clock)
            self._clock = commit.time

    def _count(
        self, rows: Sequence[Mapping[str, Json]], depth: int, generator: int, attributes: Mapping[str, str], sign: int
    ) -> None:
        """Count rows that enter the training set, or leave it (`sign` -1)."""
        if not rows:
            return
        self.accepted += sign * len(rows)
        self.by_generator[generator] += sign * len(rows)
        self.depths[depth] += sign * len(rows)
        if self.format.labels and self.format.roles.answer:
            for values in rows:
                self.labels[str(field_at(values, self.format.roles.answer))] += sign
        for name, value in attributes.items():
            self.attributes[name][value] += sign * len(rows)

    def calibrated(self, probabilities: Probabilities) -> Probabilities:
        """The verifier's probabilities, without its bias to labels if they are fixed."""
        return self.label_noise_check.calibrated(probabilities) if self.label_noise_check else probabilities

    def _add_decided(self, scored: Scored) -> None:
        self.scored += 1
        if scored.assigned is not None:
            probabilities = self.calibrated(scored.probabilities)
            self.assigned += 1
            self.agreed += probabilities[scored.assigned] == max(probabilities)
        self.kept += scored.final is not None

    @property
    def pseudo_labels(self) -> bool:
        """Whether texts are written without a label."""
        return self.label_noise_check is not None and self.label_noise_check.pseudo_labels

    def summary(self, requested: int, model_licenses: str | None) -> RunSummary:
        """The summary of the run; `requested` is its count. Seconds and rates leave out the time between sessions."""
        spec, rate = self.spec, 1 / self.seconds if self.seconds else 0.0
        return {
            "strategy": spec.strategy,
            "model": spec.model,
            "license": model_licenses,
            **({"instruction": spec.instruction} if spec.instruction else {}),
            **({"benchmark": spec.benchmark} if spec.benchmark else {}),
            "formatting_examples": len(spec.examples),
            "shots": spec.shots,
            "requested": requested,
            "accepted": self.accepted,
            "finished": self.accepted >= requested,
            "rejected": {reason.value: n for reason, n in self.rejects.most_common()},
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            "thinking_tokens": self.thinking_tokens,
            "tokens_per_example": round(self.generated_tokens / max(1, self.accepted), 1),
            "seconds": round(self.seconds, 1),
            "examples_per_second": round(self.accepted * rate, 3),
            "tokens_per_second": round(self.generated_tokens * rate, 1),
            "depths": {str(depth): n for depth, n in sorted(self.depths.items()) if n},
            "labels": dict(sorted(self.labels.items())),
            "attributes": {name: dict(counts) for name, counts in self.attributes.items()},
            "generators": {each.model: self.by_generator[index] for index, each in enumerate(spec.mixture)},
            "verification": self._verification_summary(),
            "review": self.review.summary(),
            "depth_warning": self._depth_warning(),
            "filters": filter_report(spec.filters, self.rejects),
            "compared_with": [each.model_dump() for each in spec.compared_with],
        }

    def _depth_warning(self) -> str | None:
        """A warning if most examples are children of formatting examples; None for naive and small sets."""
        rows, children = self.depths.total(), self.depths[1]
        is_small = rows < _MIN_REQUESTS * self.spec.num_examples
        if self.spec.strategy == "naive" or is_small or children <= _MAX_SHALLOW_SHARE * rows:
            return None
        return (
            f"{children} of {rows} examples are direct children of formatting examples (or of the instruction), as "
            "with --strategy naive; use fewer --num-chains, a smaller --max-parent-uses, fewer examples or a larger "
            "--count"
        )

    def _verification_summary(self) -> dict[str, Any] | None:
        verification, check = self.spec.verification, self.label_noise_check
        if verification is None:
            return None
        concordance = check.concordance if check else None
        return {
            "model": verification.model,
            "mode": verification.mode,
            "scored": self.scored,
            "kept": self.kept,
            "dropped": self.scored - self.kept,
            "agreed": round(self.agreed / self.assigned, 4) if self.assigned else None,
            "tokens": self.scoring_tokens,
            "concordance": concordance.value if concordance else None,
            "concordance_interval": [concordance.low, concordance.high] if concordance else None,
            "min_concordance": verification.label_noise_check if check else None,
            "label_noise_rows": check.seen if check else None,
            "pseudo_labels": check.pseudo_labels if check else None,
        }


def summary_fields(summary: RunSummary) -> dict[str, str]:
    """The most important figures of a summary for people: name -> text."""
    verification, accepted = summary["verification"], summary["accepted"]
    rejected = sum(n for reason, n in summary["rejected"].items() if reason != "not_needed")
    share = f" ({accepted / (accepted + rejected):.0%} accepted)" if rejected else ""
    thinking = f", of which {summary['thinking_tokens']} thinking" if summary.get("thinking_tokens") else ""
    # If a benchmark has two splits, this keeps the last one, test.
    splits = {each["name"]: each["split"] for each in summary["compared_with"]}
    test_sets = ", ".join(name + " (dev only)" * (split == "dev") for name, split in splits.items())
    fields = {
        "examples": f"{accepted} of {summary['requested']}{share}",
        "made by": f"{summary['model']}, {summary['strategy']}",
        "benchmark": summary.get("benchmark", ""),
        "instruction": shorten(" ".join(summary.get("instruction", "").split()), 200),
        "rejected": _counts(summary["rejected"]),
        "depth": ", ".join(f"{n} at depth {depth}" for depth, n in summary["depths"].items()),
        "labels": _counts(summary["labels"]),
        "attributes": "; ".join(f"{name} ({_counts(n)})" for name, n in summary["attributes"].items()),
        "verified": _verification_text(verification) if verification else "",
        **review_fields(summary["review"]),
        "decontaminated": f"against {test_sets or 'no test set'}",
        "speed": f"{summary['examples_per_second']} examples/s, {summary['tokens_per_second']} tokens/s",
        "cost": f"{summary['requests']} requests, {summary['generated_tokens']} tokens generated{thinking} "
        f"({summary['tokens_per_example']} per example), {summary['seconds']} s",
    }
    return {name: text for name, text in fields.items() if text}


def _verification_text(verification: Mapping[str, Any]) -> str:
    """The verifier, the rows kept, and the result of the label-noise check."""
    results = [f"kept {verification['kept']} of {verification['scored']}"]
    if (agreed := verification["agreed"]) is not None:
        results.append(f"agreed with {agreed:.0%} of the assigned answers")
    if (concordance := verification["concordance"]) is not None:
        results.append(f"concordance {concordance:.2f}")
    if verification["pseudo_labels"]:
        results.append("pseudo-labels")
    return f"by {verification['model']} ({verification['mode']}): {', '.join(results)}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {n}" for name, n in counts.items())
