"""Dataset filtering: `datacreate filter` checks the rows of a run directory or of a file."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from datacreate.checkpoints.checkpoint import resolve
from datacreate.creation.decontamination_sets import find_decontamination_sets, with_names
from datacreate.engines import EngineOptions
from datacreate.engines.factory import LocalModel, make_client, resolve_checkpoint
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import scoring_test
from datacreate.errors import UsageError
from datacreate.files import storage_error
from datacreate.filters import FilterOptions, filter_report, filters_need_embedder, make_filters
from datacreate.filters.filter import Filter, FilterResources, Threshold, first_reject, threshold_setting
from datacreate.formats import FormatOptions
from datacreate.formats.candidate import Candidate
from datacreate.formats.example import field_at
from datacreate.formats.reject import RejectReason
from datacreate.formats.task_format import TaskFormat
from datacreate.locking import exclusive_replacement
from datacreate.messages import Notify, Progress
from datacreate.prompts.label_scoring import check_letters, check_scorable, make_label_prompt, scoring_system_message
from datacreate.runs.config import AuxiliaryModelOptions
from datacreate.runs.directory import RunDirectory
from datacreate.runs.validated_rows import InvalidRow, ValidatedRows, ValidRow, read_rows
from datacreate.selection.embeddings import PassedVectors, SentenceEmbedder
from datacreate.verification import (
    NO_SCORES,
    Probabilities,
    disagreement,
    final_label,
    round_probabilities,
    score_labels,
)
from datacreate.verification.label_noise import MIN_ROWS, calibrated, label_means

_BATCH = 256  # rows embedded or scored at once, and between two reports of progress

_CALIBRATION_ROWS = 200
"""Rows that calibrate the verifier: about one to two times this number, or all rows if there are fewer."""


class FilterConfig(EngineOptions, AuxiliaryModelOptions, FilterOptions, FormatOptions):
    """The settings of `filter`; the engine options are those of the server that scores labels for --verifier."""

    near: Threshold = threshold_setting(
        "Reject rows whose inputs each have at least this Jaccard similarity to those of an earlier one, computed on "
        "words and word pairs.",
        default=0.7,
    )

    @model_validator(mode="after")
    def _check_verifier(self) -> Self:
        flag = self.first_changed_flag(EngineOptions.model_fields)
        if self.verifier is None and flag:
            raise ValueError(f"{flag} only applies to --verifier; remove it, or name a verifier")
        return self


class VerifierFilter(Filter):
    """Rejects rows whose label is not the most probable one for a model, which sees the row without the label.

    Scoring takes long: rows that one of the `other_filters` rejects are not scored.
    """

    name = "verifier"
    reason = RejectReason.REJECTED_BY_VERIFIER
    option_names = ("verifier",)

    def __init__(self, client: ModelClient, model: str, rows: ValidatedRows, other_filters: Sequence[Filter]) -> None:
        """Raises UsageError if labels are free text."""
        check_scorable(rows.format, f"--verifier {model}")
        self._client, self._model, self._rows = client, model, rows
        self._format = rows.format
        self._other_filters = other_filters
        self._scored_by_letter = False
        self._means: Sequence[float] | None = None  # of the probabilities of each label; None: not calibrated
        self._sample: dict[str, Probabilities | None] = {}  # by the id of an example; None: no scores
        self._scores: dict[str, Probabilities | None] = {}  # of the sample and this batch

    def prepare(self) -> None:
        """Start the model, and measure its bias to fixed labels on a sample of the rows, as a run does on its first."""
        self._client.start([scoring_test(scoring_system_message(self._rows.instruction))])
        labels = self._format.labels
        self._scored_by_letter = self._client.needs_letters(labels or ())
        if self._scored_by_letter:
            check_letters(self._format, "--verifier", self._model, "use another model")
        if labels is None:
            return
        rows = islice(self._rows.read(), 0, None, max(1, self._rows.total // _CALIBRATION_ROWS))
        candidates = [row.candidate for row in rows if isinstance(row, ValidRow)]
        self._sample = self._score(candidates)
        scored = [
            (self._assigned(candidate), scores)
            for candidate in candidates
            if (scores := self._sample.get(candidate.example.id))
        ]
        self._means = label_means(scored, len(labels)) if len(scored) >= MIN_ROWS else None

    def prefetch(self, candidates: Sequence[Candidate]) -> None:
        new = [candidate for candidate in candidates if candidate.example.id not in self._sample]
        self._scores = self._sample | self._score(new)

    def _score(self, candidates: Sequence[Candidate]) -> dict[str, Probabilities | None]:
        """The probabilities of these examples by their ids, without those that are not scored."""
        label_prompts = {}
        for candidate in candidates:
            label_prompt = make_label_prompt(
                self._format,
                candidate.example.values,
                scored_by_letter=self._scored_by_letter,
                instruction=self._rows.instruction,
            )
            if label_prompt and not first_reject(self._other_filters, candidate):
                label_prompts[candidate.example.id] = label_prompt
        seeded = [(prompt, prompt.text) for prompt in label_prompts.values()]
        scores_of_examples = score_labels(self._client, seeded, lambda _: None)
        return {
            example_id: round_probabilities(scores) if scores else None
            for example_id, scores in zip(label_prompts, scores_of_examples, strict=True)
        }

    def _assigned(self, candidate: Candidate) -> int:
        """The index of the row's answer."""
        return self._format.answers.right_index(candidate.example.values) or 0

    def find_problem(self, candidate: Candidate) -> str | None:
        scores = self._scores.get(candidate.example.id)
        if scores is None:
            return NO_SCORES
        if self._means is not None:
            scores = calibrated(scores, self._means)
        assigned = self._assigned(candidate)
        if final_label("drop", assigned, scores) is not None:
            return None
        return disagreement(self._format.answers.choices(candidate.example.values), assigned, scores)


@dataclass
class _RowCheck:
    """Decides for each row whether it is rejected, and counts the rows."""

    filters: Sequence[Filter]
    format: TaskFormat
    invalid: int = 0
    first_invalid: str | None = None  # its line number and detail
    rejected: Counter[RejectReason] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)  # valid rows by label; "" without fixed labels
    after: Counter[str] = field(default_factory=Counter)  # kept ones
    conflicting: int = 0  # rows whose label is not that of the first row with these inputs
    first_labels: dict[int, str] = field(default_factory=dict)  # hash of the inputs -> label of the first row with them

    def find_reject(self, row: ValidRow | InvalidRow) -> dict[str, Any] | None:
        """The line of a rejected row for `--rejects`; None if it is kept."""
        if isinstance(row, InvalidRow):
            self.invalid += 1
            self.first_invalid = self.first_invalid or f"line {row.number}: {row.detail}"
            return {"reason": row.reason, "detail": row.detail, "line": row.number, "row": row.values}
        label = str(field_at(row.values, self.format.roles.answer or ())) if self.format.labels else ""
        label = sys.intern(label)  # so that `first_labels` has no copies
        self.before[label] += 1
        if self.format.labels and self.first_labels.setdefault(hash(row.candidate.exact_key), label) != label:
            self.conflicting += 1
        if reject := first_reject(self.filters, row.candidate):
            self.rejected[reject.reason] += 1
            return {"reason": reject.reason, "detail": reject.detail, "line": row.number, "row": json.loads(row.line)}
        self.after[label] += 1
        for candidate_filter in self.filters:
            candidate_filter.add(row.candidate, row.number)
        return None

    def report(self, source: Path) -> dict[str, Any]:
        """The counts as JSON. Raises UsageError if most rows are not valid, or if there are no rows."""
        labels = list(map(str, self.format.labels or ()))
        valid = self.before.total()
        if self.invalid > valid:
            raise UsageError(
                f"{source}: {self.invalid} of {valid + self.invalid} rows are not valid in the format "
                f"{self.format.name}, the first is {self.first_invalid}; name another --format, or repair them"
            )
        if not valid:
            raise UsageError(f"{source}: no rows; give a file or a run directory with rows")
        return {
            "rows": valid + self.invalid,
            "invalid": self.invalid,
            "first_invalid": self.first_invalid,
            "kept": self.after.total(),
            "conflicting_labels": self.conflicting,
            "labels": {
                "before": {label: self.before[label] for label in labels},
                "after": {label: self.after[label] for label in labels},
            },
        }


def filter_rows(
    source: Path,
    config: FilterConfig | None = None,
    *,
    out: Path | None = None,
    rejects: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Check the rows of a run directory or of a file; returns the counts, as `filter --json` prints them.

    `out` gets the kept rows as they were read, `rejects` one object per rejected row (reason, detail, line, row); both
    are JSONL, and an older file is replaced. Raises UsageError if an output is an input or has no name of a JSONL file,
    or most rows are not valid; BenchmarkError or CheckpointError if a benchmark or model is not downloaded; EngineError
    if the verifier fails; StorageError if the disk is full; and what `read_rows` raises.
    """
    config, progress = config or FilterConfig(), progress or Progress()
    notify = progress.notify
    names = ("all",) if config.decontaminate is None else config.decontaminate
    rows = read_rows(source, config)
    _check_outputs({"--out": out, "--rejects": rejects}, (*rows.files, *map(Path, names)))
    sets = find_decontamination_sets(names, rows.format)
    options = with_names(config, sets)
    vectors = None
    if filters_need_embedder(options):
        vectors = PassedVectors(SentenceEmbedder(resolve(config.embedding_model, "encoder").path))
    filters = make_filters(options, FilterResources(sets, vectors, number_prefix="line"))
    with _jsonl_output(rejects, notify) as write_reject, _jsonl_output(out, notify) as write, ExitStack() as stack:
        verifier: VerifierFilter | None = None
        if config.verifier is not None:
            checkpoint = resolve_checkpoint(config.verifier, config)
            checkpoint.check_can_score()
            client = make_client(LocalModel(checkpoint, config, only_scores=True), count=rows.total, notify=notify)
            stack.callback(client.close)
            verifier = VerifierFilter(client, checkpoint.name, rows, tuple(filters))
            filters.append(verifier)
        for candidate_filter in filters:
            candidate_filter.prepare()
        check = _RowCheck(filters, rows.format)
        for row in _prefetched(rows, filters, progress):
            if reject := check.find_reject(row):
                write_reject(json.dumps(reject, ensure_ascii=False))
            elif isinstance(row, ValidRow):
                write(row.line)
        counts = check.report(source)
    filter_reports = filter_report(options, check.rejected)
    if verifier:
        filter_reports.append(verifier.report(config.model_copy(update={"verifier": checkpoint.name}), check.rejected))
    return {
        "source": str(source),
        "format": rows.format.name,
        **counts,
        "filters": filter_reports,
        "embedding_model": config.embedding_model if vectors else None,
        "compared_with": [each.spec.model_dump() for each in sets],
        "out": out and str(out),
        "rejects": rejects and str(rejects),
    }


def _prefetched(rows: ValidatedRows, filters: Sequence[Filter], progress: Progress) -> Iterator[ValidRow | InvalidRow]:
    """The rows, after the filters have prefetched them in batches."""
    remaining, done = rows.read(), 0
    while batch := list(islice(remaining, _BATCH)):
        if done:
            progress.step("filter", done, max(done, rows.total), None)
        done += len(batch)
        candidates = [row.candidate for row in batch if isinstance(row, ValidRow)]
        for candidate_filter in filters:
            candidate_filter.prefetch(candidates)
        yield from batch


@contextmanager
def _jsonl_output(path: Path | None, notify: Notify) -> Iterator[Callable[[str], object]]:
    """Write lines to a file that appears at the end of the block, unless the block fails; nothing without a path.

    A link is followed. Raises RunLocked, StorageError.
    """
    if path is None:
        yield lambda _: None
        return
    try:
        with exclusive_replacement(path.resolve(), notify) as part, part.open("wb") as file:
            yield lambda line: file.write(line.encode("utf-8") + b"\n")
    except OSError as error:
        raise storage_error(path, error) from None


def _check_outputs(outputs: Mapping[str, Path | None], inputs: Sequence[Path]) -> None:
    """Raise UsageError if an output (flag -> path) has no name of a JSONL file, or must not be written.

    It must not be an input, another output or a file of a run.
    """
    taken = {path.resolve() for path in inputs}
    for flag, path in outputs.items():
        if path is None:
            continue
        target = path.resolve()
        if target.suffix.lower() not in (".jsonl", ".ndjson"):
            raise UsageError(f"{flag} {path}: rows are written as JSONL; give a name that ends in .jsonl")
        if target in taken:
            raise UsageError(f"{flag} {path}: that would overwrite an input or output; give another file")
        if RunDirectory(target.parent).owns(target):
            raise UsageError(f"{flag} {path}: that would overwrite a file of a run; give another file")
        taken.add(target)
