"""The figures of a run, counted commit by commit."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from datacreate.formats.example import field_at
from datacreate.formats.task_format import TaskFormat, answer_text
from datacreate.formats.validate import Reason, Reject
from datacreate.runs.config import RunSpec, Verification
from datacreate.runs.log import Commit, Session
from datacreate.verification.label_noise import LabelNoiseCheck

_SAMPLES = 3

WARNED_RATIO = 1.5
"""The label most often kept by the verifier against the least, of as many written: beyond it
the summary warns."""


@dataclass
class RunStats:
    """Running figures; feeding it a log again gives the same figures."""

    format: TaskFormat
    verification: Verification | None = None
    writers: Sequence[str] = ()  # names of the models that take turns, if there are several
    accepted: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    replicas: int = 1  # copies of what writes that worked side by side, in the last session
    consecutive_failures: int = 0  # requests in a row without an accepted example
    rejects: Counter[Reason] = field(default_factory=Counter)
    depths: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    by_writer: Counter[int] = field(default_factory=Counter)  # accepted examples by the writer's turn
    last_rejects: deque[Reject] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    scored: int = 0  # examples that the verifier was asked about and that it decided on
    scoring_tokens: int = 0
    written_by_label: Counter[int] = field(default_factory=Counter)  # of those with an answer of their own
    agreed: int = 0  # with the answer that an example was written with
    kept_by_label: Counter[int] = field(default_factory=Counter)  # by the verifier, quota aside
    accepted_before_check: int = 0  # accepted before the label-noise check decided
    _clock: float | None = None  # when the session or its last commit was

    @classmethod
    def of(cls, spec: RunSpec, format: TaskFormat) -> Self:
        """Nothing counted yet, of the run of that identity."""
        return cls(format, spec.verification, [writer.model for writer in spec.mixture])

    @cached_property
    def label_noise_check(self) -> LabelNoiseCheck | None:
        """The check of a run with fixed labels that are verified."""
        how, labels = self.verification, self.format.labels
        return (
            LabelNoiseCheck(len(labels), how.label_noise_rows, how.label_noise_check)
            if how and labels
            else None
        )

    def take(self, record: Session | Commit) -> None:
        """Count a line of the log."""
        if isinstance(record, Commit):
            self.add(record)
        else:
            self.begin(record)

    def begin(self, session: Session) -> None:
        self._clock = session.began
        self.replicas = int(session.where.get("replicas", "1"))
        self.consecutive_failures = 0  # whoever calls again after NoProgress means it

    def add(self, commit: Commit) -> None:
        self.requests += 1
        self.accepted += len(commit.accepted)
        self.by_writer[commit.request % max(1, len(self.writers))] += len(commit.accepted)
        self.consecutive_failures = 0 if commit.accepted else self.consecutive_failures + 1
        self.prompt_tokens += commit.prompt_tokens
        self.generated_tokens += commit.generated_tokens
        if commit.accepted:
            self.depths[commit.depth + 1] += len(commit.accepted)
        if self.format.labels and self.format.roles.answer:
            self.labels.update(answer_text(field_at(e, self.format.roles.answer)) for e in commit.accepted)
        self._add_scored(commit)
        self.rejects.update(reject.reason for reject in commit.rejects)
        self.last_rejects.extend(commit.rejects)
        if self._clock is not None:
            self.seconds += max(0.0, commit.at - self._clock)
            self._clock = commit.at

    def _add_scored(self, commit: Commit) -> None:
        self.scoring_tokens += commit.scoring_tokens
        if self.label_noise_check and not self.label_noise_check.decided:
            self.accepted_before_check += len(commit.accepted)
        for scored in commit.scored:
            self.scored += 1
            if scored.assigned >= 0:
                self.written_by_label[scored.assigned] += 1
                self.agreed += scored.probabilities[scored.assigned] == max(scored.probabilities)
            if scored.final >= 0:
                self.kept_by_label[scored.final] += 1
            if self.label_noise_check:
                self.label_noise_check.add(scored)

    @property
    def _pseudo_labels(self) -> bool:
        return self.label_noise_check is not None and self.label_noise_check.pseudo_labels

    @property
    def written(self) -> int:
        """Examples the model wrote that were judged; surplus ones were never needed."""
        return self.accepted + sum(n for reason, n in self.rejects.items() if reason is not Reason.NOT_NEEDED)

    def summary(self, requested: int) -> dict[str, Any]:
        """The document of summary.json; rates are over `seconds`, the time spent waiting for commits."""
        rate = 1 / self.seconds if self.seconds else 0.0
        return {
            "requested": requested,
            "accepted": self.accepted,
            "finished": self.accepted >= requested,
            "rejected": {reason.value: n for reason, n in self.rejects.most_common()},
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            "tokens_per_example": round(self.generated_tokens / max(1, self.accepted), 1),
            "seconds": round(self.seconds, 1),
            "replicas": self.replicas,
            "examples_per_second": round(self.accepted * rate, 3),
            "tokens_per_second": round(self.generated_tokens * rate, 1),
            "depths": {str(depth): n for depth, n in sorted(self.depths.items())},
            "labels": dict(sorted(self.labels.items())),
            "writers": {name: self.by_writer[turn] for turn, name in enumerate(self.writers)},
            "verification": self._verified(),
        }

    def _verified(self) -> dict[str, Any] | None:
        """What verification did; None where there was none."""
        how, names = self.verification, [answer_text(label) for label in self.format.labels or ()]
        if how is None:
            return None
        kept = {name: self.kept_by_label[place] for place, name in enumerate(names)}
        ratio = self._one_sidedness() if names else None
        check = self.label_noise_check
        return {
            "model": how.model,
            "mode": how.mode,
            "threshold": how.threshold,
            "scored": self.scored,
            "kept": sum(self.kept_by_label.values()),
            "dropped": self.scored - sum(self.kept_by_label.values()),
            "agreed": round(self.agreed / written, 4) if (written := self.written_by_label.total()) else None,
            "tokens": self.scoring_tokens,
            "auc": check.auc if check else None,
            "min_auc": how.label_noise_check if check else None,
            "label_noise_rows": check.seen if check else None,
            "label_noise_rows_required": check.required if check else None,
            "accepted_before_check": self.accepted_before_check if check else None,
            "pseudo_labels": check.pseudo_labels if check else None,
            "written_by_label": {name: self.written_by_label[place] for place, name in enumerate(names)},
            "kept_by_label": kept,
            "kept_ratio": round(ratio, 2) if ratio else None,
            "warning": self._warning(names) if ratio and ratio > WARNED_RATIO else None,
        }

    def _one_sidedness(self) -> float | None:
        """How many times as many of one label were kept as of another, if as many were written of each.

        Quotas deal the label more often that is dropped more often, so that the bare numbers of kept
        ones come out even. Where the text comes first no label is dealt, and the numbers speak.
        """
        kept, written = self.kept_by_label, self.written_by_label
        if not kept:
            return None
        if self._pseudo_labels:
            numbers = [kept[place] for place in range(len(self.format.labels or ()))]
            return max(numbers) / max(1, min(numbers))
        rates = [max(1, kept[place]) / number for place, number in written.items() if number]
        return max(rates) / min(rates)

    def _warning(self, names: Sequence[str]) -> str:
        kept, written = self.kept_by_label, self.written_by_label
        told = ", ".join(
            f"{name} {kept[place]}" + ("" if self._pseudo_labels else f" of {written[place]}")
            for place, name in enumerate(names)
        )
        return (
            f"the verifier kept {told}: more than {WARNED_RATIO:g} to 1, so the balance of the set is bought "
            "by throwing examples of one label away; the model finds it hard to write the other"
        )
