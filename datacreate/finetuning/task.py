"""What an encoder sees of an example: texts, and the place of the right answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from datacreate.errors import TrainingError
from datacreate.formats.example import FieldPath, Json, field_at
from datacreate.formats.task_format import Head, TaskFormat, answer_text


class Task(BaseModel):
    """What a head decides: one of so many options, or one of these labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: Head
    names: tuple[str, ...]  # the labels in the order of the head's outputs, or the options' places

    @property
    def classes(self) -> int:
        return len(self.names)

    def refuse_other(self, other: Task, this: str, that: str) -> None:
        """Raise TrainingError, naming both sides, unless `other` asks for the same head."""
        if self == other:
            return
        raise TrainingError(
            f"{this} has {self.described}, {that} has {other.described}; use what asks for the same head"
        )

    @property
    def described(self) -> str:
        """In words: `questions with 5 options`, `the labels True, False`."""
        if self.head == "multiple_choice":
            return f"questions with {self.classes} options"
        return f"the labels {', '.join(self.names)}"


@dataclass(frozen=True)
class Question:
    """One example as texts. `answer` is the place of the right option or label; None if it has none."""

    text: str
    context: str | None
    options: tuple[str, ...]  # empty for a fixed label set
    answer: int | None
    verdict: tuple[float, ...] | None = None  # a probability for each output of the head


def task_of(format: TaskFormat, rows: Sequence[Mapping[str, Json]], where: str) -> Task:
    """The task of rows of a format. TrainingError if an encoder has no head for it.

    Labels that the format leaves open are those that the rows hold, if there are few.
    """
    if format.head == "multiple_choice" and format.roles.options is not None:
        # The commonest number: an odd row in front says nothing about the rest.
        lists = _values(rows, format.roles.options)
        numbers = Counter(len(options) for options in lists if isinstance(options, list))
        number = max(numbers, key=lambda number: numbers[number], default=0)
        if number < 2:
            raise TrainingError(f"{where}: no row with two options or more; give each row a list of them")
        return Task(head="multiple_choice", names=tuple(str(place) for place in range(number)))
    labels = [answer_text(label) for label in format.labels or ()]
    if not labels and format.roles.answer is not None:
        labels = sorted({answer_text(label) for label in _values(rows, format.roles.answer)})
    if 2 <= len(labels) <= max(2, min(50, len(rows) // 2)):
        return Task(head="sequence_classification", names=tuple(labels))
    what = f"{len(labels)} different answers" if labels else "no answer field"
    raise TrainingError(
        f"{where}: {what} in {len(rows)} rows; an encoder needs options or a fixed set of labels"
    )


def _values(rows: Sequence[Mapping[str, Json]], path: FieldPath) -> Iterator[Json]:
    """What the rows have at `path`, of those that have it."""
    for row in rows:
        with suppress(KeyError, TypeError):
            yield field_at(row, path)


def question_of(row: Mapping[str, Json], format: TaskFormat, task: Task) -> Question | str:
    """The texts of a row; or, in words, why there is no way to ask it."""
    try:
        roles = format.roles
        context = field_at(row, roles.context) if roles.context else None
        text = format.text_of(row)
        answer = answer_text(field_at(row, roles.answer or ()))
        if not text.strip():
            return "the question is empty"
        if task.head == "sequence_classification":
            return Question(text, context, (), _place(answer, task.names))
        options = tuple(answer_text(option) for option in field_at(row, roles.options or ()))
    except (KeyError, TypeError, IndexError) as error:
        return f"a field is missing ({error})"
    if len(options) != task.classes:
        return f"{len(options)} options where {task.classes} are needed"
    return Question(text, context, options, _place(answer, options))


def _place(answer: str, names: Sequence[str]) -> int | None:
    """Where an answer stands among the names: as it is spelled, else in another case."""
    if answer in names:
        return names.index(answer)
    folded = [name.casefold().strip() for name in names]
    wanted = answer.casefold().strip()
    return folded.index(wanted) if wanted in folded else None
