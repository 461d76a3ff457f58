"""Defines `Reject`, a generated text that was not accepted, and `RejectReason`. `create --help` imports this module."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

_LESS_REPETITION = "try more formatting examples, --attributes, a higher --temperature or a smaller --count"


class RejectReason(StrEnum):
    """Why a generated example is not in the training set; `advice` says what to do if this happens to all examples."""

    advice: str

    def __new__(cls, value: str, advice: str = "try another model or example, or a larger --max-tokens") -> Self:
        member = str.__new__(cls, value)
        member._value_, member.advice = value, advice
        return member

    # The request failed, or the completion is empty.
    NO_RESPONSE = "no_response", "look into the log of the server; if it has no error, try another model or example"
    INVALID_JSON = "invalid_json"
    # The completion stopped at max_tokens, or a text became too long.
    TRUNCATED = "truncated", "try a larger --max-tokens, or another model"
    SCHEMA_VIOLATION = "schema_violation"  # a keyword that engines enforce
    CONSTRAINT_VIOLATION = "constraint_violation"  # a keyword that only validation checks: a length, ...
    BLANK = "blank"  # a text without visible characters, or inputs without a letter or digit
    INVALID_CHARACTERS = "invalid_characters"  # control characters, lone surrogates
    PLACEHOLDER = "placeholder"  # a label, words of the prompt or JSON instead of content: "wrong option"
    ANSWER_NOT_IN_OPTIONS = "answer_not_in_options"
    ANSWER_NOT_IN_CONTEXT = "answer_not_in_context"
    DUPLICATE_OPTIONS = "duplicate_options"
    ANSWER_REPEATS_INPUT = "answer_repeats_input"  # the answer of a formatting example does not
    EQUAL_ANSWERS = "equal_answers"  # the rejected answer says the same as the chosen one
    WRONG_TURNS = "wrong_turns"  # user and assistant do not alternate
    WRONG_TAGS = "wrong_tags"  # not one tag for each token
    INVALID_CALL = "invalid_call"  # no such tool, or arguments that the tool does not take
    # More or fewer words than the attributes of its request ask for.
    WRONG_LENGTH = "wrong_length", "try another model, or a wider range of words in --attributes"
    # Same text as an example in its prompt, or as a part of its passage.
    COPIED_EXAMPLE = "copied_example", _LESS_REPETITION
    DUPLICATE = "duplicate", _LESS_REPETITION  # same normalized inputs as an earlier example
    NEAR_DUPLICATE = "near_duplicate", _LESS_REPETITION  # few words differ from an earlier example
    SEMANTIC_DUPLICATE = "semantic_duplicate", _LESS_REPETITION  # same meaning as an earlier example
    # Repeats a row of a test set.
    CONTAMINATED = "contaminated", "try another example, or compare with other sets in --decontaminate"
    # The verifier finds another answer more probable.
    REJECTED_BY_VERIFIER = (
        "rejected_by_verifier",
        "say what each answer means in --instruction, or try another model, another --verifier, or --verify keep",
    )
    # Its label, or a value of its attributes, has all its examples.
    OVER_QUOTA = "over_quota", "the missing labels are too rare; try another model, --verifier or --label-ratio"
    NOT_NEEDED = "not_needed"  # valid, but the requested count was reached


@dataclass(frozen=True)
class Reject:
    """A generated text that was not accepted."""

    reason: RejectReason
    text: str
    detail: str = ""  # such as the row that it repeats, or the verifier's probabilities
