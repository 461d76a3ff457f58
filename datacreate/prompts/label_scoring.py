"""The prompt that asks a model for the label of an example without showing it the label.

Used by verification and by zero-shot evaluation. The model writes nothing: the server scores the choices.

Labels that all examples share stand in the system prompt, which servers cache, always in the same order: calibration
removes a preference for one of them. Options that each example has for itself follow the text. Their order
influences small models, so each prompt is sent with two orders, and the probabilities are averaged.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from datacreate.errors import UsageError
from datacreate.formats.example import Json
from datacreate.formats.rules import Rule
from datacreate.formats.schema_utils import schema_at
from datacreate.formats.task_format import TaskFormat
from datacreate.prompts.generation import Message

MAX_LETTERS = len(ascii_uppercase)  # the largest number of options that letters can name


@dataclass(frozen=True)
class LabelPrompt:
    """The prompt that asks for the label of an example: its text, without the label, and its possible labels.

    With `scored_by_letter` each option gets a letter and the letter is scored; the system prompt asks for it. Otherwise
    the options themselves are scored, which suits labels that all examples share.
    """

    text: str
    options: tuple[str, ...]
    scored_by_letter: bool
    instruction: str | None = None  # of the run; it may explain the labels

    def messages_and_choices(self, order: Sequence[int]) -> tuple[list[Message], tuple[str, ...]]:
        """The messages with the options in this order, and the choices to score, in the same order."""
        options = tuple(self.options[index] for index in order)
        choices, task, text = options, f"Answer with one of: {', '.join(options)}.", self.text
        if self.scored_by_letter:
            choices, task = tuple(ascii_uppercase[: len(options)]), "Answer with the letter of the right option."
            text += "\n\n" + "\n".join(map("{}. {}".format, choices, options))
        system = "\n\n".join(filter(None, (scoring_system_message(self.instruction), task)))
        return [{"role": "system", "content": system}, {"role": "user", "content": text}], choices


def scoring_system_message(instruction: str | None) -> str:
    """The system message with the instruction of a run, which may explain the labels; empty without one."""
    return f"You answer about data that was written for this task:\n\n{instruction}" if instruction else ""


class PermutedPrompt:
    """A label prompt that is sent with several permutations of its options, and the scores of each.

    With letters there are two permutations, a seeded order and its reverse, so that each pair of options appears in
    both orders. Otherwise there is one, the original order.
    """

    def __init__(self, prompt: LabelPrompt, seed: str) -> None:
        self._prompt = prompt
        order = list(range(len(prompt.options)))
        self._orders = [order]
        if prompt.scored_by_letter:
            random.Random(seed).shuffle(order)
            self._orders.append(order[::-1])
        self._scores: list[list[float]] = []

    @property
    def permutations(self) -> range:
        """The numbers of the permutations."""
        return range(len(self._orders))

    def messages_and_choices(self, permutation: int) -> tuple[list[Message], tuple[str, ...]]:
        """The messages and the choices of a permutation; see `LabelPrompt.messages_and_choices`."""
        return self._prompt.messages_and_choices(self._orders[permutation])

    def add_scores(self, permutation: int, scores: Sequence[float] | None) -> None:
        """Add the scores of the choices of a permutation; None if the server returned none."""
        if scores:
            by_option = sorted(zip(self._orders[permutation], scores, strict=True))
            self._scores.append([score for _, score in by_option])

    def mean_scores(self) -> tuple[float, ...] | None:
        """The mean scores in the order of the options; None unless all permutations were scored."""
        if len(self._scores) < len(self._orders):
            return None
        return tuple(sum(column) / len(column) for column in zip(*self._scores, strict=True))


def can_score_labels(task_format: TaskFormat, *, scored_by_letter: bool = False) -> bool:
    """Whether the examples of a specialized format have a closed set of answers, few enough for the letters."""
    if task_format.roles.answer is None:
        return False
    if task_format.labels:
        return not scored_by_letter or len(task_format.labels) <= MAX_LETTERS
    options = task_format.roles.options
    if options is None or not task_format.options_vary or Rule.ANSWER_IN_OPTIONS not in task_format.rules:
        return False
    return bool(schema_at(task_format.schema, options).get("maxItems", 0) <= MAX_LETTERS)


def check_scorable(task_format: TaskFormat, flag: str) -> None:
    """Raise UsageError if the answers are free text. `flag` is the option, with its value, that asks for scores."""
    if not can_score_labels(task_format):
        raise UsageError(
            f"{flag}: free text cannot be scored, and the answers of the format {task_format.name} are neither fixed "
            f"labels nor one of at most {MAX_LETTERS} options; give --labels FIELD=a,b,c, or remove {flag.split()[0]}"
        )


def check_letters(task_format: TaskFormat, flag: str, model: str, advice: str) -> None:
    """Raise UsageError, ending with `advice`, if there are too many labels for letters and `model` needs letters."""
    if not can_score_labels(task_format, scored_by_letter=True):
        raise UsageError(
            f"{flag}: {model}: several of the {len(task_format.labels or ())} labels start with the same token, and "
            f"letters work for at most {MAX_LETTERS} labels; {advice}"
        )


def make_label_prompt(
    task_format: TaskFormat, values: Mapping[str, Json], *, scored_by_letter: bool, instruction: str | None = None
) -> LabelPrompt | None:
    """The prompt that asks for the label of a valid example; None if the example has no closed set of answers.

    `scored_by_letter` also gives letters to fixed labels, for a model whose tokenizer starts several labels with the
    same token.
    """
    answers = task_format.answers.choices(values)
    scored_by_letter = scored_by_letter or not task_format.labels
    if not answers or (scored_by_letter and len(answers) > MAX_LETTERS):
        return None
    passage_and_inputs = filter(str.strip, (task_format.passage(values), task_format.text_for_model(values)))
    return LabelPrompt("\n\n".join(passage_and_inputs), tuple(map(str, answers)), scored_by_letter, instruction)
