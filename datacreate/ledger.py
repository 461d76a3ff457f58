"""What has been committed, and what follows from it.

A completion is read into a `Draft`, a draft settled into a `Commit`: in the order of requests, in
view of the whole set. `apply` takes a commit in. Replaying a log is taking in its commits, so a
run that was killed goes on from the very same state, and nothing is embedded, scored or judged
twice. Where a commit cannot be written the run ends, and what `settle` changed goes with it.
"""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from datacreate.engines.base import Completion, Request
from datacreate.errors import LogDamaged
from datacreate.plan import Plan
from datacreate.quality.filters import Filter
from datacreate.quality.labels import Quotas
from datacreate.quality.verification import labelled, rounded, verdict
from datacreate.runs.gate import Gate
from datacreate.runs.log import Commit, LogLine, Probabilities, Scored, example_line
from datacreate.runs.summary import Tally
from datacreate.selection.accepted import AcceptedVectors
from datacreate.selection.coverage import Coverage
from datacreate.selection.frontier import Chains, Frontier, Levels, Node, Place, Tree
from datacreate.selection.similarity import Similarity
from datacreate.tasks.blind import BlindQuestion, answered, blind_question, claimed_by
from datacreate.tasks.example import Example, Json, field_at
from datacreate.tasks.layout import batch_schema
from datacreate.tasks.prompt import chat_prompt
from datacreate.tasks.roles import answer_text
from datacreate.tasks.validate import Candidate, Reason, Reject, candidate, capped, read_completion


@dataclass(frozen=True)
class Ask:
    """A request that is due: its place, and the labels dealt to its examples if there are any."""

    place: Place
    labels: tuple[Json, ...] | None
    text_first: bool = False


@dataclass(frozen=True)
class Draft:
    """An answer, read: its items in order, and what the verifier said of those that it was asked about."""

    ask: Ask
    completion: Completion
    items: tuple[Candidate | Reject, ...]
    questions: Mapping[int, BlindQuestion]  # item -> what the verifier is to be asked
    scores: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    scoring_tokens: int = 0


class Ledger:
    """The state of a run. `due` holds the asks that may be submitted, in order."""

    def __init__(
        self,
        plan: Plan,
        count: int,
        similarity: Similarity | None,
        filters: Sequence[Filter],
        accepted: AcceptedVectors | None = None,
    ) -> None:
        self._plan = plan
        self._count = count
        self._similarity = similarity
        self._filters = filters
        self._embedder = accepted.embedder if accepted else None
        self._vectors = accepted if plan.strategy.grows == "cover" else None
        self._taken = 0
        self._format = plan.layout.format
        self._layouts = {first: replace(plan.layout, text_first=first) for first in (False, True)}
        self._root_key = candidate(plan.root.values, self._format).key
        self._parent_key = lru_cache(maxsize=4096)(self._key_of_line)
        labels = self._format.labels if plan.improved else None
        shares = plan.identity.shares
        self._quotas = Quotas(labels, count, list(shares.values()) if shares else None) if labels else None
        self._verification = plan.identity.verification
        self._frontier = _frontier(plan, self._vectors)
        self._schema = lru_cache(maxsize=1024)(self._make_schema)
        self.seed = plan.identity.seed
        self.tally = Tally.of(plan.identity, self._format)
        self.due: deque[Ask] = deque()
        self._assign()

    @property
    def finished(self) -> bool:
        return self.tally.accepted >= self._count

    @property
    def gate(self) -> Gate | None:
        """Where the dealt labels are held against the verifier, if they are."""
        return self.tally.gate

    @property
    def _text_first(self) -> bool:
        return self.gate is not None and self.gate.text_first

    def _assign(self) -> None:
        while (place := self._frontier.next()) is not None:
            labels = None
            if self._quotas and not self._text_first:
                rng = self._rng("deal", place.request)
                labels = tuple(self._quotas.deal(self._plan.identity.num_examples, rng))
            self.due.append(Ask(place, labels, self._text_first))

    def _rng(self, purpose: str, request: int) -> random.Random:
        return random.Random(f"{self.seed}:{purpose}:{request}")

    def _make_schema(self, labels: tuple[Json, ...] | None, text_first: bool) -> str:
        number = self._plan.identity.num_examples
        return batch_schema(self._layouts[text_first], number, list(labels) if labels else None)

    def _key_of_line(self, line: str) -> str:
        return candidate(json.loads(line), self._format).key

    def request(self, ask: Ask) -> Request:
        """What the engine is asked."""
        place, layout = ask.place, self._layouts[ask.text_first]
        messages = chat_prompt(layout, place.example, self._plan.identity.num_examples)
        schema = self._schema(ask.labels, ask.text_first)
        samplings = self._plan.samplings
        return Request(place.request, messages, schema, samplings[place.request % len(samplings)])

    def read(self, ask: Ask, completion: Completion) -> Draft:
        """The items of an answer, and those that are worth the verifier's time."""
        items = tuple(self._read(ask, completion))
        if self._embedder:  # all at once; those who compare meanings ask for one after the other
            candidates = [item for item in items if isinstance(item, Candidate)]
            self._embedder.encode([candidate.text for candidate in candidates])
            for each in self._filters:
                each.ahead(candidates)
        questions: dict[int, BlindQuestion] = {}
        if self._verification:
            for index, item in enumerate(items):
                # What is objected to now is objected to when it is settled: filters only see more.
                if isinstance(item, Candidate) and self._objection(ask, item) is None:
                    values, lettered = item.example.values, self._verification.lettered
                    question = blind_question(self._format, values, lettered=lettered)
                    if question is not None:
                        questions[index] = question
        return Draft(ask, completion, items, questions)

    def _read(self, ask: Ask, completion: Completion) -> Sequence[Candidate | Reject]:
        if completion.finish_reason == "error":
            return [Reject(Reason.NO_ANSWER, capped(completion.error or ""))]
        return read_completion(
            completion.text,
            self._layouts[ask.text_first],
            self._plan.identity.num_examples,
            truncated=completion.finish_reason == "length",
            salvage=self._plan.improved,
        )

    def settle(self, draft: Draft) -> Commit:
        """What is accepted of a draft, given all that was committed before it."""
        accepted: list[Example] = []
        rejects: list[Reject] = []
        scored: list[Scored] = []
        for item, probabilities in self._items(draft):
            outcome, judged = self._settled(draft.ask, item, probabilities, len(accepted))
            if isinstance(outcome, Reject):
                rejects.append(outcome)
            else:
                accepted.append(outcome)
            if judged:
                scored.append(judged)
        place, completion = draft.ask.place, draft.completion
        return Commit(
            request=place.request,
            parent=place.example.id,
            depth=place.parent.depth,
            attempt=place.attempt,
            accepted=tuple(dict(example.values) for example in accepted),
            chosen=tuple(self._choose(place, accepted)),
            rejects=tuple(rejects),
            prompt_tokens=completion.prompt_tokens,
            generated_tokens=completion.generated_tokens,
            at=round(time.time(), 3),
            scored=tuple(scored),
            scoring_tokens=draft.scoring_tokens,
        )

    def _items(self, draft: Draft) -> Iterator[tuple[Candidate | Reject, Probabilities | None]]:
        for index, item in enumerate(draft.items):
            scores = draft.scores.get(index)
            yield item, rounded(scores) if scores else None

    def _settled(
        self, ask: Ask, item: Candidate | Reject, probabilities: Probabilities | None, taken: int
    ) -> tuple[Example | Reject, Scored | None]:
        """One item as it enters the set, or why it does not; and what the verifier's word did, if any."""
        if isinstance(item, Reject):
            return item, None
        if reject := self._objection(ask, item, taken):
            return reject, None
        if not self._verification:
            return self._taken_in(item), None
        if probabilities is None:
            return _reject(Reason.DISAGREES, item, "the verifier gave no answer"), None
        claimed = claimed_by(self._format, item.example.values)
        said = self._verified(-1 if ask.text_first else claimed, probabilities)
        if said.given < 0:
            return _reject(Reason.DISAGREES, item, self._told(item.example, said)), said
        if said.given != claimed:
            mended = candidate(answered(self._format, item.example.values, said.given), self._format)
            # Without free text the answer is part of what is compared.
            if mended.key != item.key and (reject := self._objection(ask, mended, taken)):
                return reject, said
            item = mended
        outcome = self._taken_in(item)
        return outcome, replace(said, accepted=not isinstance(outcome, Reject))

    def _taken_in(self, item: Candidate) -> Example | Reject:
        """The item in the set, or rejected where its label has no room left."""
        if self._quotas and not self._quotas.room(self._label(item.example.values)):
            return _reject(Reason.OVER_QUOTA, item)
        self._take(item, item.example.values)
        return item.example

    def _verified(self, claimed: int, probabilities: Probabilities) -> Scored:
        """What the verifier's word does to an example written with the answer `claimed`, -1 if with none."""
        assert self._verification is not None, "asked only where there is a verifier"
        how = self._verification
        if self.gate and self.gate.text_first:
            probabilities = self.gate.calibrated(probabilities)
            given = labelled(self.gate.thresholds(how.threshold), probabilities)
        else:
            given = verdict(how.mode, how.threshold, claimed, probabilities)
        return Scored(claimed, given, False, probabilities)

    def _told(self, example: Example, said: Scored) -> str:
        choices = [answer_text(label) for label in self._format.labels or ()] or list(
            map(str, range(1, 1 + len(said.probabilities)))
        )
        shares = ", ".join(f"{name} {p:.2f}" for name, p in zip(choices, said.probabilities, strict=True))
        claimed = f"claimed {choices[said.claimed]}; " if said.claimed >= 0 else ""
        return f"{claimed}the verifier: {shares}"

    def _objection(self, ask: Ask, item: Candidate, taken: int = 0) -> Reject | None:
        """What speaks against a valid example in view of the whole set, before it is verified."""
        if item.key in (self._parent_key(ask.place.parent.line), self._root_key):
            return _reject(Reason.COPY, item)
        for each in self._filters:
            if (match := each.match(item)) is not None:
                return _reject(each.reason, item, match.what)
        if self.tally.accepted + taken >= self._count:
            return _reject(Reason.SURPLUS, item)
        if self._quotas and self._label_stays and not self._quotas.room(self._label(item.example.values)):
            return _reject(Reason.OVER_QUOTA, item)
        return None

    @property
    def _label_stays(self) -> bool:
        """Whether an example keeps the label it was written with, now and when it is settled."""
        if self.gate and (not self.gate.shut() or self.gate.text_first):
            return False
        return not (self._verification and self._verification.mode == "relabel")

    def _label(self, values: Mapping[str, Json]) -> Json:
        path = self._format.roles.answer
        return field_at(values, path) if path else None

    def _take(self, item: Candidate, values: Mapping[str, Json]) -> None:
        """Let filters and quotas know of an accepted example."""
        for each in self._filters:
            each.add(item)
        if self._quotas:
            self._quotas.add(self._label(values))
        if self._vectors:
            self._vectors.put(self._taken, item.text)
        self._taken += 1

    def _choose(self, place: Place, accepted: Sequence[Example]) -> Sequence[int]:
        if not accepted:
            return ()
        parent = self._format.text_of(place.example.values)
        children = [self._format.text_of(example.values) for example in accepted]
        rng = self._rng("choose", place.request)
        return self._plan.strategy.choose(parent, children, rng, self._similarity)

    def apply(self, place: Place, commit: Commit) -> None:
        """Go on from a settled commit; the asks that it makes due join `due`."""
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
        for values in commit.accepted:
            self._take(candidate(values, self._format), values)
        self.apply(place, commit)


def _reject(reason: Reason, item: Candidate, because: str = "") -> Reject:
    return Reject(reason, capped(item.example.values), because)


def _frontier(plan: Plan, vectors: AcceptedVectors | None) -> Frontier:
    root, identity = Node(example_line(dict(plan.root.values)), 0), plan.identity
    if vectors:
        return Coverage(root, identity.window, vectors.__getitem__, vectors.root, asks=identity.asks)
    if plan.strategy.grows == "chain":
        return Chains(root, identity.window)
    if identity.method == "paper":
        return Levels(root, identity.seed, identity.window)
    return Tree(root, identity.window, identity.asks)
