"""What has been committed, and what follows from it.

A request's completion becomes a `Commit` by `judge`, which changes nothing; `apply` takes a
commit in. Replaying a log is applying its commits, so a run that was killed goes on from the
very same state, and nothing is embedded, scored or judged twice.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from datacreate.engines.base import Completion, Request
from datacreate.errors import LogDamaged
from datacreate.plan import Plan
from datacreate.quality.duplicates import ExactDuplicates
from datacreate.quality.labels import Quotas
from datacreate.runs.log import Commit, LogLine, example_line
from datacreate.runs.summary import Tally
from datacreate.selection.frontier import Chains, Frontier, Levels, Node, Place, Tree
from datacreate.selection.similarity import Similarity
from datacreate.tasks.example import Example, Json, field_at
from datacreate.tasks.layout import batch_schema
from datacreate.tasks.prompt import chat_prompt
from datacreate.tasks.validate import Candidate, Reason, Reject, capped, normalised, read_completion


@dataclass(frozen=True)
class Ask:
    """A request that is due: its place, and the labels dealt to its examples if there are any."""

    place: Place
    labels: tuple[Json, ...] | None


class Ledger:
    """The state of a run. `due` holds the asks that may be submitted, in order."""

    def __init__(self, plan: Plan, count: int, similarity: Similarity | None) -> None:
        self._plan = plan
        self._count = count
        self._similarity = similarity
        self._format = plan.layout.format
        self._root_key = self._key(plan.root)
        self._duplicates = ExactDuplicates()
        labels = self._format.labels if plan.improved else None
        self._quotas = Quotas(labels, count) if labels else None
        self._frontier = _frontier(plan)
        self._judged: tuple[Commit | None, list[str]] = (None, [])  # the last commit and its keys
        self._schema = lru_cache(maxsize=1024)(self._make_schema)
        self.tally = Tally(self._format)
        self.due: deque[Ask] = deque()
        self._assign()

    def _key(self, example: Example) -> str:
        return normalised(self._format.text_of(example.values))

    @property
    def finished(self) -> bool:
        return self.tally.accepted >= self._count

    def _assign(self) -> None:
        while (place := self._frontier.next()) is not None:
            labels = None
            if self._quotas:
                rng = self._rng("deal", place.request)
                labels = tuple(self._quotas.deal(self._plan.identity.num_examples, rng))
            self.due.append(Ask(place, labels))

    def _rng(self, purpose: str, request: int) -> random.Random:
        return random.Random(f"{self._plan.identity.seed}:{purpose}:{request}")

    def _make_schema(self, labels: tuple[Json, ...] | None) -> str:
        return batch_schema(
            self._plan.layout, self._plan.identity.num_examples, list(labels) if labels else None
        )

    def request(self, ask: Ask) -> Request:
        """What the engine is asked."""
        place = ask.place
        messages = chat_prompt(self._plan.layout, place.example, self._plan.identity.num_examples)
        return Request(place.request, messages, self._schema(ask.labels), self._plan.sampling)

    def judge(self, place: Place, completion: Completion) -> Commit:
        """What is accepted of a completion, given all that was committed before it; changes nothing."""
        trial = _Trial(self._key(place.example), self._quotas.copy() if self._quotas else None)
        rejects: list[Reject] = []
        for result in self._read(completion):
            if isinstance(result, Candidate):
                reason = self._objection(result, trial)
                if reason is None:
                    trial.accept(result, self._label(result.example))
                    continue
                result = Reject(reason, capped(result.example.values))
            rejects.append(result)
        commit = Commit(
            request=place.request,
            parent=place.example.id,
            depth=place.parent.depth,
            attempt=place.attempt,
            accepted=tuple(dict(example.values) for example in trial.accepted),
            chosen=tuple(self._choose(place, trial.accepted)),
            rejects=tuple(rejects),
            prompt_tokens=completion.prompt_tokens,
            generated_tokens=completion.generated_tokens,
            at=round(time.time(), 3),
        )
        self._judged = (commit, trial.keys)
        return commit

    def _read(self, completion: Completion) -> list[Candidate | Reject]:
        if completion.finish_reason == "error":
            return [Reject(Reason.NO_ANSWER, capped(completion.error or ""))]
        return read_completion(
            completion.text,
            self._plan.layout,
            self._plan.identity.num_examples,
            truncated=completion.finish_reason == "length",
            salvage=self._plan.improved,
        )

    def _objection(self, candidate: Candidate, trial: _Trial) -> Reason | None:
        """What speaks against a valid example in view of the whole set."""
        if candidate.key in (trial.parent_key, self._root_key):
            return Reason.COPY
        if candidate.key in trial.keys or candidate.key in self._duplicates:
            return Reason.DUPLICATE
        if self.tally.accepted + len(trial.accepted) >= self._count:
            return Reason.SURPLUS
        if trial.quotas and not trial.quotas.room(self._label(candidate.example)):
            return Reason.OVER_QUOTA
        return None

    def _label(self, example: Example) -> Json:
        path = self._format.roles.answer
        return field_at(example.values, path) if path else None

    def _choose(self, place: Place, accepted: Sequence[Example]) -> Sequence[int]:
        if not accepted:
            return ()
        parent = self._format.text_of(place.example.values)
        children = [self._format.text_of(example.values) for example in accepted]
        rng = self._rng("choose", place.request)
        return self._plan.strategy.choose(parent, children, rng, self._similarity)

    def apply(self, place: Place, commit: Commit) -> None:
        """Take a commit in; the asks that it makes due join `due`."""
        judged, keys = self._judged
        if commit is not judged:  # replayed
            keys = [self._key(Example(values)) for values in commit.accepted]
        for values, key in zip(commit.accepted, keys, strict=True):
            self._duplicates.add(key)
            if self._quotas:
                self._quotas.add(self._label(Example(values)))
        self.tally.add(commit)
        chosen = [Node(commit.lines[i], commit.depth + 1) for i in commit.chosen]
        self._frontier.commit(place, chosen, len(commit.accepted))
        self._assign()

    def replay(self, line: LogLine, where: str) -> None:
        """Take in a line of the log. LogDamaged if it cannot have followed the ones before."""
        commit = line.record
        if not isinstance(commit, Commit):
            self.tally.begin(commit)
            return
        place = self.due.popleft().place
        had = (commit.request, commit.parent, commit.attempt)
        if had != (place.request, place.example.id, place.attempt):
            raise LogDamaged(
                f"{where}, line {line.number}: request {had[0]} asked {had[1]} for time {had[2]}, where "
                f"{place.request} was to ask {place.example.id} for time {place.attempt}; restore the file "
                "from a copy, or take another --run-dir"
            )
        self.apply(place, commit)


@dataclass
class _Trial:
    """What one completion has added so far, while it is being judged."""

    parent_key: str
    quotas: Quotas | None
    accepted: list[Example] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # of the accepted; a handful

    def accept(self, candidate: Candidate, label: Json) -> None:
        self.accepted.append(candidate.example)
        self.keys.append(candidate.key)
        if self.quotas:
            self.quotas.add(label)


def _frontier(plan: Plan) -> Frontier:
    root, identity = Node(example_line(dict(plan.root.values)), 0), plan.identity
    if plan.strategy.grows == "chain":
        return Chains(root, identity.window)
    if identity.method == "paper":
        return Levels(root, identity.seed)
    return Tree(root, identity.window, identity.asks)
