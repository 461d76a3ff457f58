"""The statistics of a run, updated with every commit."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from datacreate.filters import filter_report
from datacreate.formats.example import field_at, shorten
from datacreate.formats.reject import Reject, RejectReason
from datacreate.formats.schema_utils import schema_at
from datacreate.formats.task_format import TaskFormat
from datacreate.runs.config import RunSpec, VerificationSpec
from datacreate.runs.decisions import Decision, ReviewStats, Sample, review_fields
from datacreate.runs.log import Commit, LogRecord, SessionStart
from datacreate.verification import Scored, VerifyMode
from datacreate.verification.label_noise import LabelNoiseCheck

_MAX_SHALLOW_SHARE = 0.5  # largest share of children of the formatting example without a warning
_MIN_REQUESTS = 20  # a set that fewer requests can write is too small to be deep

RunSummary = dict[str, Any]
"""The content of summary.json; `RunStats.summary` declares its keys."""


class RunVerification:
    """The verification of a run after the commits so far: the label-noise check, what waits for it, and counts.

    With fixed labels a request says which label each text is written for, and a small model may ignore that. So the
    scored examples of the first requests wait: their commits have them in `waiting`. They count for filters and can be
    parents, since both depend only on the text. The check compares their labels with the probabilities of the verifier
    until it decides. Then each of these requests gets a second commit, `released`, in the same order, which accepts or
    rejects what waited. If the labels are noise, it ignores them, and later texts are written without a label: all get
    pseudo-labels, those that the verifier finds most probable. With the mode `keep` nothing waits.
    """

    def __init__(self, spec: VerificationSpec | None, task_format: TaskFormat) -> None:
        self._spec = spec
        self.mode: VerifyMode = spec.mode if spec else "off"
        self._labels = task_format.labels if spec else None
        is_range = bool(self._labels) and "minimum" in schema_at(task_format.schema, task_format.roles.answer or ())
        max_rows, min_concordance = (spec.label_noise_rows, spec.label_noise_check) if spec else (0, None)
        self.check = LabelNoiseCheck(self._labels or (), max_rows, min_concordance, is_range=is_range)
        self.waiting: deque[Commit] = deque()  # in the order in which they are released
        self._scored = 0  # examples that the verifier scored, without those that wait
        self._tokens = 0
        self._assigned = 0  # scored examples that were written for a label
        self._agreed = 0  # assigned ones whose label is the most probable
        self._kept = 0  # by the verifier, before quotas

    @property
    def must_wait(self) -> bool:
        """Whether scored examples wait for the check."""
        return not self.check.decided and self.mode != "keep"

    @property
    def label_is_final(self) -> bool:
        """Whether an example keeps the label that it is written with, whatever the verifier finds."""
        return self.check.decided and not self.check.pseudo_labels and self.mode != "relabel"

    @property
    def num_waiting(self) -> int:
        """The number of examples that wait."""
        return sum(len(commit.waiting) for commit in self.waiting)

    def add(self, commit: Commit) -> None:
        """Add the results of a commit."""
        self._tokens += commit.scoring_tokens
        num_verified = len(commit.scored)
        if commit.released:  # it may end with examples that were not verified, since the count was reached
            self.waiting.popleft()
            num_verified -= sum(each.reason is RejectReason.NOT_NEEDED for each in commit.rejects)
        elif commit.waiting:
            self.waiting.append(commit)
        for scored in commit.scored[:num_verified]:
            if not commit.released:
                self.check.add(scored)
            if not commit.waiting:
                self._count(scored)

    def _count(self, scored: Scored) -> None:
        self._scored += 1
        if scored.assigned is not None:
            probabilities = self.check.calibrated(scored.probabilities)
            self._assigned += 1
            self._agreed += probabilities[scored.assigned] == max(probabilities)
        self._kept += scored.final is not None

    def summary(self) -> dict[str, Any] | None:
        """The counts and the result of the check for summary.json; None without verification."""
        if self._spec is None:
            return None
        concordance, has_check = self.check.concordance, bool(self._labels)
        return {
            "model": self._spec.model,
            "mode": self.mode,
            "scored": self._scored,
            "kept": self._kept,
            "dropped": self._scored - self._kept,
            "agreed": round(self._agreed / self._assigned, 4) if self._assigned else None,
            "tokens": self._tokens,
            "concordance": concordance.value if concordance else None,
            "concordance_interval": [concordance.low, concordance.high] if concordance else None,
            "min_concordance": self._spec.label_noise_check if has_check else None,
            "label_noise_rows": self.check.seen if has_check else None,
            "pseudo_labels": self.check.pseudo_labels if has_check else None,
        }


@dataclass
class RunStats:
    """The counts of a run so far. The same log gives the same numbers."""

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
    _clock: float | None = None  # time of the session's start or last commit

    @cached_property
    def attributes(self) -> dict[str, Counter[str]]:
        """How many accepted examples have each value of each dimension: dimension -> value -> count."""
        return {each.name: Counter(dict.fromkeys(each.shares, 0)) for each in self.spec.attributes}

    @cached_property
    def verification(self) -> RunVerification:
        return RunVerification(self.spec.verification, self.format)

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
                self._count_rows(record, record.depth)
                self.review.add_decision(record)
            case Sample():
                self.review.begin_sample(record)

    def _add_commit(self, commit: Commit) -> None:
        self.requests += not commit.released
        self._count_rows(commit, commit.parent_depth + 1)
        if commit.accepted or commit.waiting:
            self.requests_since_accepted = 0
        else:
            self.requests_since_accepted += not commit.released
        self.prompt_tokens += commit.prompt_tokens
        self.generated_tokens += commit.generated_tokens
        if not commit.released:  # logs from before December 2026 repeat the number of the first commit there
            self.thinking_tokens += commit.thinking_tokens
        self.verification.add(commit)
        self.rejects.update(reject.reason for reject in commit.rejects)
        self.last_rejects.extend(commit.rejects)
        if self._clock is not None:
            self.seconds += max(0.0, commit.time - self._clock)
            self._clock = commit.time

    def _count_rows(self, record: Commit | Decision, depth: int) -> None:
        """Count the rows that enter the training set, or leave it."""
        for values, sign in record.changes:
            self.accepted += sign
            self.by_generator[record.generator] += sign
            self.depths[depth] += sign
            if self.format.labels and self.format.roles.answer:
                self.labels[str(field_at(values, self.format.roles.answer))] += sign
            for name, value in record.attributes.items():
                self.attributes[name][value] += sign

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
            "verification": self.verification.summary(),
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
