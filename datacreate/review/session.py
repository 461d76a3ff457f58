"""A review of a run: its rows, what is known about them, their order, and the decisions, which are written to the log.

A decision is on the disk before it counts. train.jsonl, summary.json and the dataset card are written at the end; after
a kill the next review or the next `create` writes them.
"""

from __future__ import annotations

import getpass
import os
import random
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property

from datacreate.creation.quotas import RunQuotas
from datacreate.errors import DatacreateError, DecisionRefused, UsageError
from datacreate.formats.candidate import Candidate, CopyChecks, validate_example
from datacreate.formats.example import Example, Json, value_at
from datacreate.formats.reject import Reject, RejectReason
from datacreate.formats.task_format import TaskFormat
from datacreate.locking import FolderLock
from datacreate.messages import Notify, no_notify
from datacreate.runs.attributes import find_length_reject
from datacreate.runs.decisions import Decision, Sample, Verdict
from datacreate.runs.directory import ComputeMetrics, RunDirectory
from datacreate.runs.log import Commit, LogRecord, LogWriter, example_line, first_checksum
from datacreate.runs.stats import RunStats
from datacreate.verification import Probabilities

_UNCERTAIN_MARGIN = 0.2  # a row is uncertain if its answer leads by less than this probability
FLAGS = {
    "disagreement": "the verifier finds another answer more probable",
    "uncertain": f"the answer leads the next one by less than {_UNCERTAIN_MARGIN:g}",
    "longest_option": "the right option is longer than all others",
}
"""The meaning of each flag."""


@dataclass
class ReviewRow:
    """A row of a run, and what is known about it."""

    number: int  # from 1, in the order in which rows were accepted
    commit: Commit  # that accepted it
    values: dict[str, Json]  # of a rejected row those that it had
    assigned: int | None = None  # index of the answer that the text was written for; None without one
    probabilities: Probabilities = ()  # the verifier's, of the possible answers; () if not known
    decision: Decision | None = None  # the last one
    in_set: bool = True  # whether it is in train.jsonl

    def margin(self, task_format: TaskFormat) -> float | None:
        """The probability of the row's answer minus that of the best other one; None if not known."""
        right = task_format.answers.right_index(self.values)
        if right is None or len(self.probabilities) < 2:
            return None
        others = (p for index, p in enumerate(self.probabilities) if index != right)
        return round(self.probabilities[right] - max(others), 4)

    def flags(self, task_format: TaskFormat) -> list[str]:
        """The names in `FLAGS` that the row has."""
        margin, flags = self.margin(task_format), list[str]()
        if margin is not None and margin < _UNCERTAIN_MARGIN:
            flags.append("disagreement" if margin < 0 else "uncertain")
        right, options = task_format.answers.right_index(self.values), task_format.answers.choices(self.values)
        if task_format.options_vary and right is not None:
            lengths = [len(str(option).strip()) for option in options]
            if lengths.count(max(lengths)) == 1 and lengths[right] == max(lengths):
                flags.append("longest_option")
        return flags


@dataclass(frozen=True)
class Change:
    """A decision that a reviewer asks for."""

    row: ReviewRow
    verdict: Verdict
    reason: str = ""
    values: dict[str, Json] | None = None  # of an edited row

    @property
    def moves(self) -> bool:
        """Whether the row may enter or leave the set, or change its label."""
        return self.verdict != "accept" or not self.row.in_set


def select_rows(
    rows: Iterable[ReviewRow], task_format: TaskFormat, label: str | None = None, flag: str | None = None
) -> list[ReviewRow]:
    """The rows with a label and a flag (None: any), the most uncertain first; rows without probabilities at the end.

    Raises UsageError if the format has no such label.
    """
    labels = [str(label) for label in task_format.labels or ()]
    if label is not None and label not in labels:
        remedy = f"labels are {', '.join(labels)}" if labels else "the format has no fixed labels"
        raise UsageError(f"--label: unknown label {label!r}; {remedy}")
    rows = [row for row in rows if label is None or str(value_at(row.values, task_format.roles.answer)) == label]
    selected = [row for row in rows if flag is None or flag in row.flags(task_format)]
    return sorted(selected, key=lambda row: ((margin := row.margin(task_format)) is None, margin or 0.0, row.number))


@contextmanager
def reviewing(
    directory: RunDirectory, compute_metrics: ComputeMetrics | None = None, notify: Notify = no_notify
) -> Iterator[ReviewSession]:
    """Review a run in this block; its directory is locked. Afterwards its files follow the decisions.

    Raises UsageError if it is not a run, RunError or LogDamaged if it is damaged, RunLocked if another process writes
    it, StorageError if it cannot be written.
    """
    directory.read_config()  # before the lock, which would create the folder
    with directory.locked(notify) as lock:
        with closing(ReviewSession(directory, lock)) as session:
            yield session
        if session.is_changed:
            directory.write_results(session.config, session.stats, lock, compute_metrics, notify)


class ReviewSession:
    """The rows of a run and the decisions about them; the caller holds the lock."""

    def __init__(self, directory: RunDirectory, lock: FolderLock) -> None:
        self.directory = directory
        self.config = directory.read_config()
        self.format = self.config.format
        self._lock = lock
        self.rows: list[ReviewRow] = []  # in order of their numbers, from 1
        spec = self.config.spec
        self._copies = CopyChecks(spec.examples, self.format)
        self._passed: list[dict[str, Json]] = []  # examples that passed, also those of no row
        self._row_of: dict[str, int] = {}  # exact key of all these, and of edited rows -> row; 0 for none
        self.stats = RunStats(spec, self.format)
        self._quotas = RunQuotas.of(spec, self.format, self.config.count)
        self.is_changed = not directory.is_up_to_date()  # since the results were written; first if a review was killed
        self._log: LogWriter | None = None  # opened at the first save: until then nothing is changed
        self._checksum = first_checksum(self.config.run_id)
        for line in directory.log():
            self._checksum = line.checksum
            self._add_record(line.record)
        for row in self.rows:
            if row.probabilities:
                row.probabilities = self.stats.verification.check.calibrated(row.probabilities)

    def close(self) -> None:
        if self._log:
            self._log.close()

    def _add_record(self, record: LogRecord) -> None:
        self.stats.add_record(record)
        if isinstance(record, Commit):
            self._add_rows(record)
        elif isinstance(record, Decision):
            self._apply(record)

    def _add_rows(self, commit: Commit) -> None:
        self._quotas.add_record(commit)
        self._passed += commit.passed
        self._row_of |= dict.fromkeys(map(self._key, commit.passed), 0)
        for values, scored in commit.scored_rows:
            self.rows.append(ReviewRow(len(self.rows) + 1, commit, values, scored.assigned, scored.probabilities))
            self._row_of[self._key(values)] = len(self.rows)

    def _key(self, values: dict[str, Json]) -> str:
        return Candidate.of(values, self.format).exact_key

    def _label(self, values: dict[str, Json]) -> Json:
        return value_at(values, self.format.roles.answer)

    def _apply(self, decision: Decision) -> None:
        self._quotas.add_record(decision)
        row = self.rows[decision.row - 1]
        row.decision = decision
        if decision.removed:
            row.in_set = False
        if decision.added:
            if decision.added != row.values:
                row.probabilities = ()  # they are those of another text
            row.values, row.in_set = decision.added, True
            self._row_of[self._key(decision.added)] = decision.row

    @property
    def fields(self) -> list[str]:
        """The fields of every row. Raises UsageError if there are no rows."""
        if not self.rows:
            raise UsageError(f"{self.directory.path}: the run has no rows yet; there is nothing to review")
        return list(self.rows[0].values)

    def parent(self, row: ReviewRow) -> dict[str, Json] | None:
        """The example that the model was shown when it wrote the row."""
        return self._parents.get(row.commit.parent)

    @cached_property
    def _parents(self) -> dict[str, dict[str, Json]]:
        """What prompts may have shown, by id; made for the first row that is shown."""
        return {Example(values).id: values for values in (*self.config.spec.examples, *self._passed)}

    def sample(self, size: int, seed: int) -> list[ReviewRow]:
        """Rows drawn at random from train.jsonl. A sample with this size and seed that was begun last is continued.

        The sample is written to the log, and the summary estimates from it how many labels are right.
        """
        sample = self.stats.review.sample
        if sample is None or (sample.seed, len(sample.rows)) != (seed, min(size, sample.of)):
            in_set = [row.number for row in self.rows if row.in_set]
            if not in_set:
                raise UsageError(f"{self.directory.path}: train.jsonl has no rows; nothing can be drawn")
            drawn = random.Random(seed).sample(in_set, min(size, len(in_set)))
            sample = Sample(tuple(drawn), len(in_set), seed, _reviewer(), round(time.time(), 3))
            self.save([sample])
        return [self.rows[number - 1] for number in sample.rows]

    def decide(self, change: Change) -> None:
        """Make one decision. Raises DecisionRefused, with the reason; LockLost; StorageError."""
        [decision] = self.prepare([change])
        if isinstance(decision, DecisionRefused):
            raise decision
        self.save([decision])

    def prepare(self, changes: Sequence[Change]) -> list[Decision | DecisionRefused]:
        """The decisions about different rows, which are made together, or why one is refused. Nothing is changed."""
        quotas, row_of = deepcopy(self._quotas), dict(self._row_of)
        for row in (change.row for change in changes if change.moves and change.row.in_set):
            quotas.add(row.values, row.commit.attributes, -1)
        decisions: dict[int, Decision | DecisionRefused] = {}
        for change in sorted(changes, key=self._quota_order):
            row, values = change.row, None if change.verdict == "reject" else change.row.values
            try:
                if change.verdict == "edit":
                    values = self._validated(change, row_of)
                    row_of[self._key(values)] = row.number
                if values and change.moves:
                    self._count_in(quotas, values, row.commit.attributes)
                decisions[row.number] = self._decision(change, values)
            except DatacreateError as error:
                decisions[row.number] = DecisionRefused(f"row {row.number}: {error}")
        return [decisions[change.row.number] for change in changes]

    def _quota_order(self, change: Change) -> tuple[bool, bool]:
        """Sorts changes: rows that keep their place and label come first, so that they are not refused."""
        label = self._label(change.values or change.row.values)
        return not change.row.in_set, label != self._label(change.row.values)

    def _decision(self, change: Change, values: dict[str, Json] | None) -> Decision:
        """The record of a decision; `values` of the row after it, None if it is rejected."""
        row = change.row
        old_values = row.values if row.in_set else None
        is_unchanged = (values and example_line(values)) == (old_values and example_line(old_values))
        return Decision(
            verdict=change.verdict,
            row=row.number,
            request_number=row.commit.request_number,
            depth=row.commit.parent_depth + 1,
            generator=row.commit.generator,
            attributes=row.commit.attributes,
            removed=None if is_unchanged else old_values,
            added=None if is_unchanged else values,
            reason=change.reason,
            reviewer=_reviewer(),
            time=round(time.time(), 3),
        )

    def save(self, records: Sequence[Decision | Sample]) -> None:
        """Write decisions or a sample to the log in one step, and apply them. Raises LockLost, StorageError."""
        self._log = self._log or LogWriter(self.directory.log_path, self._checksum, self._lock)
        self._log.write(records)
        self._log.sync(now=True)
        self.is_changed = True
        for record in records:
            self._add_record(record)

    def _validated(self, change: Change, row_of: Mapping[str, int]) -> dict[str, Json]:
        """The values of an edited row, which must be valid and repeat no other text. Raises DecisionRefused.

        `row_of`: the rows of all texts, by their exact keys.
        """
        row, task_format = change.row, self.format
        assert change.values is not None, "an edit has values"
        candidate = validate_example(change.values, task_format)
        if isinstance(candidate, Reject):
            raise _refused(candidate)
        values = dict(candidate.example.values)
        passage = task_format.roles.context if task_format.context_is_given else None
        if value_at(values, passage) != value_at(row.values, passage):
            raise DecisionRefused("the passage is that of a document; edit the other fields")
        if example_line(values) == example_line(row.values):
            raise DecisionRefused("nothing is edited; change a field, or accept the row")
        parent = self.parent(row)
        shown = self._copies.formatting_keys | ({self._key(parent)} if parent else set())
        reject = find_length_reject(candidate, row.commit.attributes, self.config.spec.attributes)
        if reject := reject or self._copies.find_reject(candidate, shown):
            raise _refused(reject)
        other_row = row_of.get(candidate.exact_key, row.number)
        if self.config.spec.filters.exact and other_row != row.number:
            repeated = f"row {other_row}" if other_row else "an example that was not accepted"
            raise _refused(candidate.reject(RejectReason.DUPLICATE, f"repeats {repeated}"))
        return values

    def _count_in(self, quotas: RunQuotas, values: dict[str, Json], attributes: Mapping[str, str]) -> None:
        """Count a row that enters the set. Raises DecisionRefused if it has no place."""
        if not quotas.missing or quotas.full_attribute(attributes):
            raise DecisionRefused("another row was written in its place, so it cannot be restored")
        if quotas.label_is_full(values):
            raise DecisionRefused(
                f"the set has as many rows with the label {self._label(values)} as it may have; reject this row, and "
                "create writes another one"
            )
        quotas.add(values, attributes)


def _refused(reject: Reject) -> DecisionRefused:
    return DecisionRefused(reject.reason.value.replace("_", " ") + (f" ({reject.detail})" if reject.detail else ""))


def _reviewer() -> str:
    """The person who decides, as user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no name for this user id
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
