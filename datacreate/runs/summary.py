"""The figures of a run, counted commit by commit."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from datacreate.runs.log import Commit, Session
from datacreate.tasks.example import field_at
from datacreate.tasks.format import TaskFormat, answer_text
from datacreate.tasks.validate import Reason, Reject

_SAMPLES = 3


@dataclass
class Tally:
    """Running figures; feeding it a log again gives the same figures."""

    format: TaskFormat
    accepted: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    barren: int = 0  # requests in a row without an accepted example
    rejects: Counter[Reason] = field(default_factory=Counter)
    depths: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    last_rejects: deque[Reject] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    _clock: float | None = None  # when the session or its last commit was

    def take(self, record: Session | Commit) -> None:
        """Count a line of the log."""
        if isinstance(record, Commit):
            self.add(record)
        else:
            self.begin(record)

    def begin(self, session: Session) -> None:
        self._clock = session.began
        self.barren = 0  # whoever calls again after NoProgress means it

    def add(self, commit: Commit) -> None:
        self.requests += 1
        self.accepted += len(commit.accepted)
        self.barren = 0 if commit.accepted else self.barren + 1
        self.prompt_tokens += commit.prompt_tokens
        self.generated_tokens += commit.generated_tokens
        if commit.accepted:
            self.depths[commit.depth + 1] += len(commit.accepted)
        if self.format.labels and self.format.roles.answer:
            self.labels.update(answer_text(field_at(e, self.format.roles.answer)) for e in commit.accepted)
        self.rejects.update(reject.reason for reject in commit.rejects)
        self.last_rejects.extend(commit.rejects)
        if self._clock is not None:
            self.seconds += max(0.0, commit.at - self._clock)
            self._clock = commit.at

    @property
    def written(self) -> int:
        """Examples the model wrote that were judged; surplus ones were never needed."""
        return self.accepted + sum(n for reason, n in self.rejects.items() if reason is not Reason.SURPLUS)

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
            "examples_per_second": round(self.accepted * rate, 3),
            "tokens_per_second": round(self.generated_tokens * rate, 1),
            "depths": {str(depth): n for depth, n in sorted(self.depths.items())},
            "labels": dict(sorted(self.labels.items())),
        }
