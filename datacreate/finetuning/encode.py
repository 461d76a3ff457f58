"""Questions -> token ids, as a head takes them.

Multiple choice asks each option on its own, as the pair (question, option); a question with a
passage is the pair (question, passage); any other the question alone. The longer part of what
does not fit is cut first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datacreate.errors import TrainingError
from datacreate.finetuning.settings import Settings
from datacreate.finetuning.soft_labels import targets
from datacreate.finetuning.task import Question, Task

_OFFSET_POSITIONS = frozenset(
    "roberta xlm-roberta xlm-roberta-xl roberta-prelayernorm camembert mpnet data2vec-text longformer".split()
)
"""Families that number positions from the padding id on: those before are never used, two as a rule."""


@dataclass(frozen=True)
class Encoded:
    """Rows of token ids: a `datasets.Dataset` of input_ids and the like, `label` and `length`."""

    dataset: Any
    truncated: int  # rows of which something was cut


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a checkpoint; TrainingError if it has none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001
        # What transformers and tokenizers raise over a damaged file has no common class.
        said = " ".join(str(error).split())[:200]
        raise TrainingError(f"{folder}: no tokenizer that loads ({said}); bring its tokenizer.json") from None


def longest_input(tokenizer: Any, config: Any, settings: Settings, with_passage: bool) -> int:
    """Tokens of the longest input: the settings' word, within what the encoder has positions for."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    if config.model_type in _OFFSET_POSITIONS:
        positions -= max(2, 1 + (config.pad_token_id or 0))
    return int(min(settings.tokens(with_passage), positions, tokenizer.model_max_length))


def encode(
    questions: Sequence[Question],
    task: Task,
    tokenizer: Any,
    longest: int,
    *,
    show_context: bool = True,
    soft_labels: bool = False,
) -> Encoded:
    """Token ids of the questions, in order, nothing padded.

    For multiple choice input_ids is of shape (rows, options, tokens), else (rows, tokens); `length`
    is the longest of a row's inputs, `label` the place of the answer (0 where there is none), or with
    `soft_labels` a probability for each output of the head.
    """
    import datasets

    passages = has_passages(questions)
    flat = [texts for question in questions for texts in _inputs(question, task, show_context, passages)]
    first, second = zip(*flat, strict=True)
    pairs = {"text_pair": list(second)} if second[0] is not None else {}
    tokens = tokenizer(list(first), **pairs, truncation=False, padding=False, verbose=False)
    columns = {name: list(tokens[name]) for name in tokenizer.model_input_names if name in tokens}
    long = [i for i, ids in enumerate(columns["input_ids"]) if len(ids) > longest]
    if long:
        texts = [[first[i] for i in long]]
        texts += [[second[i] for i in long]] if pairs else []
        cut = tokenizer(*texts, truncation="longest_first", max_length=longest, padding=False)
        for name, values in columns.items():
            for place, i in enumerate(long):
                values[i] = cut[name][place]
    each = task.classes if task.head == "multiple_choice" else 1
    lengths = [len(ids) for ids in columns["input_ids"]]
    if task.head == "multiple_choice":
        columns = {
            name: [values[at : at + each] for at in range(0, len(values), each)]
            for name, values in columns.items()
        }
        lengths = [max(lengths[at : at + each]) for at in range(0, len(lengths), each)]
    labels = targets(questions, task) if soft_labels else [question.answer or 0 for question in questions]
    dataset = datasets.Dataset.from_dict({**columns, "label": labels, "length": lengths})
    return Encoded(dataset, len({i // each for i in long}))


def _inputs(
    question: Question, task: Task, show_context: bool, passages: bool
) -> list[tuple[str, str | None]]:
    if task.head == "multiple_choice":
        shown = question.context if show_context else None
        asked = f"{shown} {question.text}" if shown else question.text
        return [(asked, option) for option in question.options]
    return [(question.text, question.context or "" if passages else None)]


def collator(task: Task, tokenizer: Any, multiple: int | None) -> Any:
    """Puts rows into a batch, padded to its longest (and to a multiple that the hardware likes)."""
    from transformers import DataCollatorForMultipleChoice, DataCollatorWithPadding

    kind = DataCollatorForMultipleChoice if task.head == "multiple_choice" else DataCollatorWithPadding
    return kind(tokenizer, padding=True, pad_to_multiple_of=multiple)


def has_passages(questions: Sequence[Question]) -> bool:
    """Whether any of them comes with a passage."""
    return any(question.context for question in questions)
