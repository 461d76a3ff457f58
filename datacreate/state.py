"""What has been committed, and what follows from it.

A completion is read into a `ParsedCompletion`, a draft settled into a `Commit`: in the order of requests, in
view of the whole set. `apply` takes a commit in. Replaying a log is taking in its commits, so a
run that was killed goes on from the very same state, and nothing is embedded, scored or judged
twice. Where a commit cannot be written the run ends, and what `decide` changed goes with it.
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
from datacreate.filters.base import Filter
from datacreate.formats.example import Example, Json, field_at
from datacreate.formats.parse import parse_completion
from datacreate.formats.response_schema import build_response_schema
from datacreate.formats.task_format import answer_text
from datacreate.formats.validate import Candidate, Reason, Reject, shorten
from datacreate.plan import Plan
from datacreate.prompts.generation import chat_prompt
from datacreate.prompts.label_scoring import LabelQuestion, assigned_label, label_question, with_answer
from datacreate.runs.log import Commit, LogLine, example_line
from datacreate.runs.summary import RunStats
from datacreate.selection.accepted_vectors import AcceptedVectors
from datacreate.selection.embeddings import Similarity
from datacreate.selection.farthest_first import FarthestFirst
from datacreate.selection.queue import Chains, Levels, Parent, ParentQueue, RequestSlot, Tree
from datacreate.verification.label_noise import LabelNoiseCheck
from datacreate.verification.quotas import Quotas
from datacreate.verification.scoring import (
    Probabilities,
    Scored,
    final_label,
    most_probable_label,
    round_probabilities,
)


@dataclass(frozen=True)
class PendingRequest:
    """A request that is due: its place, and the labels dealt to its examples if there are any."""

    place: RequestSlot
    labels: tuple[Json, ...] | None
    pseudo_labels: bool = False


@dataclass(frozen=True)
class ParsedCompletion:
    """An answer, read: its items in order, and what the verifier said of those that it was asked about."""

    ask: PendingRequest
    completion: Completion
    items: tuple[Candidate | Reject, ...]
    questions: Mapping[int, LabelQuestion]  # item -> what the verifier is to be asked
    scores: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    scoring_tokens: int = 0


class RunState:
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
        self._layouts = {first: replace(plan.layout, pseudo_labels=first) for first in (False, True)}
        self._root_key = Candidate.of(plan.root.values, self._format).key
        self._parent_key = lru_cache(maxsize=4096)(self._key_of_line)
        labels = self._format.labels if plan.improved else None
        label_ratio = plan.spec.label_ratio
        self._quotas = (
            Quotas(labels, count, list(label_ratio.values()) if label_ratio else None) if labels else None
        )
        self._verification = plan.spec.verification
        self._queue = _queue(plan, self._vectors)
        self._schema = lru_cache(maxsize=1024)(self._make_schema)
        self.seed = plan.spec.seed
        self.stats = RunStats.of(plan.spec, self._format)
        self.due: deque[PendingRequest] = deque()
        self._assign()

    @property
    def finished(self) -> bool:
        return self.stats.accepted >= self._count

    @property
    def gate(self) -> LabelNoiseCheck | None:
        """Where the dealt labels are held against the verifier, if they are."""
        return self.stats.label_noise_check

    @property
    def _pseudo_labels(self) -> bool:
        return self.gate is not None and self.gate.pseudo_labels

    def _assign(self) -> None:
        while (place := self._queue.next()) is not None:
            labels = None
            if self._quotas and not self._pseudo_labels:
                rng = self._rng("deal", place.request)
                labels = tuple(self._quotas.assign(self._plan.spec.num_examples, rng))
            self.due.append(PendingRequest(place, labels, self._pseudo_labels))

    def _rng(self, purpose: str, request: int) -> random.Random:
        return random.Random(f"{self.seed}:{purpose}:{request}")

    def _make_schema(self, labels: tuple[Json, ...] | None, pseudo_labels: bool) -> str:
        number = self._plan.spec.num_examples
        return build_response_schema(self._layouts[pseudo_labels], number, list(labels) if labels else None)

    def _key_of_line(self, line: str) -> str:
        return Candidate.of(json.loads(line), self._format).key

    def request(self, ask: PendingRequest) -> Request:
        """What the engine is asked."""
        place, layout = ask.place, self._layouts[ask.pseudo_labels]
        messages = chat_prompt(layout, place.example, self._plan.spec.num_examples)
        schema = self._schema(ask.labels, ask.pseudo_labels)
        samplings = self._plan.samplings
        return Request(place.request, messages, schema, samplings[place.request % len(samplings)])

    def read(self, ask: PendingRequest, completion: Completion) -> ParsedCompletion:
        """The items of an answer, and those that are worth the verifier's time."""
        items = tuple(self._read(ask, completion))
        if self._embedder:  # all at once; those who compare meanings ask for one after the other
            candidates = [item for item in items if isinstance(item, Candidate)]
            self._embedder.encode([candidate.text for candidate in candidates])
            for each in self._filters:
                each.prefetch(candidates)
        questions: dict[int, LabelQuestion] = {}
        if self._verification:
            for index, item in enumerate(items):
                # What is objected to now is objected to when it is settled: filters only see more.
                if isinstance(item, Candidate) and self._objection(ask, item) is None:
                    values, lettered = item.example.values, self._verification.lettered
                    question = label_question(self._format, values, lettered=lettered)
                    if question is not None:
                        questions[index] = question
        return ParsedCompletion(ask, completion, items, questions)

    def _read(self, ask: PendingRequest, completion: Completion) -> Sequence[Candidate | Reject]:
        if completion.finish_reason == "error":
            return [Reject(Reason.NO_RESPONSE, shorten(completion.error or ""))]
        return parse_completion(
            completion.text,
            self._layouts[ask.pseudo_labels],
            self._plan.spec.num_examples,
            truncated=completion.finish_reason == "length",
            salvage=self._plan.improved,
        )

    def decide(self, draft: ParsedCompletion) -> Commit:
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
            time=round(time.time(), 3),
            scored=tuple(scored),
            scoring_tokens=draft.scoring_tokens,
        )

    def _items(self, draft: ParsedCompletion) -> Iterator[tuple[Candidate | Reject, Probabilities | None]]:
        for index, item in enumerate(draft.items):
            scores = draft.scores.get(index)
            yield item, round_probabilities(scores) if scores else None

    def _settled(
        self, ask: PendingRequest, item: Candidate | Reject, probabilities: Probabilities | None, taken: int
    ) -> tuple[Example | Reject, Scored | None]:
        """One item as it enters the set, or why it does not; and what the verifier's word did, if any."""
        if isinstance(item, Reject):
            return item, None
        if reject := self._objection(ask, item, taken):
            return reject, None
        if not self._verification:
            return self._taken_in(item), None
        if probabilities is None:
            return _reject(Reason.REJECTED_BY_VERIFIER, item, "the verifier gave no answer"), None
        assigned = assigned_label(self._format, item.example.values)
        said = self._verified(-1 if ask.pseudo_labels else assigned, probabilities)
        if said.final < 0:
            return _reject(Reason.REJECTED_BY_VERIFIER, item, self._told(item.example, said)), said
        if said.final != assigned:
            corrected = Candidate.of(with_answer(self._format, item.example.values, said.final), self._format)
            # Without free text the answer is part of what is compared.
            if corrected.key != item.key and (reject := self._objection(ask, corrected, taken)):
                return reject, said
            item = corrected
        outcome = self._taken_in(item)
        return outcome, replace(said, accepted=not isinstance(outcome, Reject))

    def _taken_in(self, item: Candidate) -> Example | Reject:
        """The item in the set, or rejected where its label has no room left."""
        if self._quotas and not self._quotas.remaining(self._label(item.example.values)):
            return _reject(Reason.OVER_QUOTA, item)
        self._take(item, item.example.values)
        return item.example

    def _verified(self, assigned: int, probabilities: Probabilities) -> Scored:
        """What the verifier's word does to an example written with the answer `assigned`, -1 if with none."""
        assert self._verification is not None, "asked only where there is a verifier"
        how = self._verification
        if self.gate and self.gate.pseudo_labels:
            probabilities = self.gate.calibrated(probabilities)
            given = most_probable_label(self.gate.thresholds(how.threshold), probabilities)
        else:
            given = final_label(how.mode, how.threshold, assigned, probabilities)
        return Scored(assigned, given, False, probabilities)

    def _told(self, example: Example, said: Scored) -> str:
        choices = [answer_text(label) for label in self._format.labels or ()] or list(
            map(str, range(1, 1 + len(said.probabilities)))
        )
        label_ratio = ", ".join(
            f"{name} {p:.2f}" for name, p in zip(choices, said.probabilities, strict=True)
        )
        assigned = f"claimed {choices[said.assigned]}; " if said.assigned >= 0 else ""
        return f"{assigned}the verifier: {label_ratio}"

    def _objection(self, ask: PendingRequest, item: Candidate, taken: int = 0) -> Reject | None:
        """What speaks against a valid example in view of the whole set, before it is verified."""
        if item.key in (self._parent_key(ask.place.parent.line), self._root_key):
            return _reject(Reason.COPIED_EXAMPLE, item)
        for each in self._filters:
            if (detail := each.match(item)) is not None:
                return _reject(each.reason, item, detail)
        if self.stats.accepted + taken >= self._count:
            return _reject(Reason.NOT_NEEDED, item)
        if (
            self._quotas
            and self._label_stays
            and not self._quotas.remaining(self._label(item.example.values))
        ):
            return _reject(Reason.OVER_QUOTA, item)
        return None

    @property
    def _label_stays(self) -> bool:
        """Whether an example keeps the label it was written with, now and when it is settled."""
        if self.gate and (not self.gate.decided or self.gate.pseudo_labels):
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

    def _choose(self, place: RequestSlot, accepted: Sequence[Example]) -> Sequence[int]:
        if not accepted:
            return ()
        parent = self._format.text_of(place.example.values)
        children = [self._format.text_of(example.values) for example in accepted]
        rng = self._rng("choose", place.request)
        return self._plan.strategy.choose(parent, children, rng, self._similarity)

    def apply(self, place: RequestSlot, commit: Commit) -> None:
        """Go on from a settled commit; the asks that it makes due join `due`."""
        self.stats.add(commit)
        chosen = [Parent(commit.lines[i], commit.depth + 1) for i in commit.chosen]
        self._queue.commit(place, chosen, len(commit.accepted))
        self._assign()

    def replay(self, line: LogLine, where: str) -> None:
        """Take in a line of the log. LogDamaged if it cannot have followed the ones before."""
        commit = line.record
        if not isinstance(commit, Commit):
            self.stats.begin(commit)
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
            self._take(Candidate.of(values, self._format), values)
        self.apply(place, commit)


def _reject(reason: Reason, item: Candidate, because: str = "") -> Reject:
    return Reject(reason, shorten(item.example.values), because)


def _queue(plan: Plan, vectors: AcceptedVectors | None) -> ParentQueue:
    root, spec = Parent(example_line(dict(plan.root.values)), 0), plan.spec
    if vectors:
        return FarthestFirst(
            root, spec.concurrency, vectors.__getitem__, vectors.root, max_parent_uses=spec.max_parent_uses
        )
    if plan.strategy.grows == "chain":
        return Chains(root, spec.concurrency)
    if spec.method == "paper":
        return Levels(root, spec.seed, spec.concurrency)
    return Tree(root, spec.concurrency, spec.max_parent_uses)
