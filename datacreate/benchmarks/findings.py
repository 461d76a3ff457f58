"""What is worth knowing of a split before anybody trains or measures on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from datacreate.benchmarks.rows import Row
from datacreate.formats.text_normalization import normalize_text


class Findings(BaseModel):
    """Shares and oddities of one split. Row numbers count from 1, as the file's lines do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    labels: dict[str, float]  # share of each label; for options that vary, of each position from 1
    constant: float  # accuracy of the best constant prediction
    repeated_options: tuple[int, ...]  # rows in which two options are the same
    answer_not_an_option: tuple[int, ...]
    repeated_questions: tuple[int, ...]  # rows whose question an earlier row of the split has asked
    in_test: tuple[int, ...]  # rows whose question is also in the test split; empty for test itself

    @property
    def malformed(self) -> frozenset[int]:
        """Rows from which nobody should learn what a row looks like."""
        return frozenset(self.repeated_options + self.answer_not_an_option)


def look_at(rows: Sequence[Row], test: Sequence[Row] = ()) -> Findings:
    """The findings of a split; two questions are the same if only case and punctuation tell them apart."""
    counts: Counter[str] = Counter()
    repeated_options, not_an_option, repeated_questions, in_test = [], [], [], []
    tested = {normalize_text(row.question) for row in test}
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        place = row.position
        if place is None:
            not_an_option.append(number)
        else:
            counts[str(row.label) if isinstance(row.label, bool) else str(place + 1)] += 1
        if row.repeats_options:
            repeated_options.append(number)
        question = normalize_text(row.question)
        if question in seen:
            repeated_questions.append(number)
        if question in tested:
            in_test.append(number)
        seen.add(question)
    total = max(1, len(rows))
    return Findings(
        rows=len(rows),
        labels={label: round(count / total, 4) for label, count in sorted(counts.items())},
        constant=round(max(counts.values(), default=0) / total, 4),
        repeated_options=tuple(repeated_options),
        answer_not_an_option=tuple(not_an_option),
        repeated_questions=tuple(repeated_questions),
        in_test=tuple(in_test),
    )
