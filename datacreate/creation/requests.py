"""The requests of a run: what one shows and asks for, its size, the size of its response, and how many run at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from datacreate.engines.model_client import ModelClient
from datacreate.errors import PromptTooLong
from datacreate.formats.candidate import Candidate
from datacreate.formats.example import Example, Json
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.formats.schema_utils import Schema, fixed_labels, is_constant, leaf_schemas
from datacreate.prompts.generation import RequestContent, chat_prompt
from datacreate.selection.queue import Parent

DEFAULT_NUM_EXAMPLES = 5
"""Examples per request, as in the paper; fewer if they do not fit the context length."""

_MAX_GROWTH = 2
"""How many times longer than the formatting example a new example can be."""

_EXTRA_TOKENS = 32
"""Additional tokens per example, so that examples like a very short one are not truncated."""

_TOKENS_PER_WORD, _CHARS_PER_WORD = 2, 20
"""The maximum numbers of tokens and characters of a word, for a range of words in --attributes. English words have
fewer."""

_TEXT_GROWTH, _MIN_LONGEST_TEXT = 4, 400
"""The maximum length of one text: this many times that of the whole formatting example, but at least this many
characters. A model that writes a longer text usually does not stop."""

_TEXT_TOKENS, _PASSAGE_TOKENS, _VALUE_TOKENS = 128, 256, 12
"""The maximum number of tokens of a text, of a passage, and of a number, a label or the punctuation of a field."""

_CHARS_PER_TOKEN = 3
_MAX_TEXT_TOKENS = 512
"""The maximum number of tokens of a text with a `maxLength`, which is often far larger than the texts."""

_MAX_ITEMS = 6
"""The assumed number of items of a list, if its `maxItems` is not smaller."""

_REQUESTS_PER_SLOT, _REQUESTS_PER_SLOT_OF_SEVERAL = 3, 10
"""The default number of uncommitted requests for each slot of the servers, with one model and with several."""


@dataclass(frozen=True)
class PendingRequest:
    """A request that is made and not committed yet: what its prompt shows and asks for."""

    number: int
    parent: Parent
    encoding: PromptEncoding  # it has pseudo-labels if the verifier will assign the labels
    labels: tuple[Json, ...] | None  # the label of each example to write; None if no labels are assigned
    content: RequestContent
    attributes: Mapping[str, str]  # dimension -> value
    other_shots: tuple[Example, ...]  # examples that the prompt shows beside the parent
    generator: int = 0  # index of the generator

    @cached_property
    def parent_example(self) -> Example:
        """The parent as an example; one without fields if the prompt shows none."""
        return Example(json.loads(self.parent.line or "{}"))

    @property
    def shown(self) -> tuple[Example, ...]:
        """The examples that the prompt shows, the parent first."""
        return (self.parent_example, *self.other_shots) if self.parent.line else ()

    @cached_property
    def shown_keys(self) -> set[str]:
        """`Candidate.exact_key` of the examples that the prompt shows: copies of them are rejected."""
        return {Candidate.of(example.values, self.encoding.format).exact_key for example in self.shown}


class ResponseLimits(NamedTuple):
    """How long a response may be: fields of `Sampling`."""

    max_tokens: int
    longest_text: int | None = None  # the maximum number of characters of one text


@dataclass(frozen=True)
class RequestSize:
    """Computes the size of the requests to one model. It asks its servers for token counts only when it needs them."""

    encoding: PromptEncoding
    examples: Sequence[Mapping[str, Json]]  # the formatting examples
    shots: int
    content: RequestContent  # what the longest prompt says besides the examples
    words: int  # the maximum number of words that --attributes ask for; 0 without a range of words
    client: ModelClient
    max_thinking_tokens: int  # that the model can write before the response

    def num_examples(self, max_count: int, min_count: int) -> int:
        """The largest number of examples, from `min_count` to `max_count`, that fits into the model's context.

        Raises PromptTooLong if `min_count` do not fit.
        """
        prompt, thinking, context = self._prompt_tokens(max_count), self.max_thinking_tokens, self.client.max_context
        for count in range(max_count, min_count - 1, -1):
            if prompt + thinking + count * self._example_tokens <= context:
                return count
        examples = f"{min_count} new example{'s' * (min_count != 1)}"
        raise PromptTooLong(
            f"a prompt of {prompt} tokens, {thinking} tokens of thinking and {examples} of up to "
            f"{self._example_tokens} tokens exceed the model's context length of {context}; use a shorter "
            "--example or --instruction, fewer --shots, fewer words in --attributes, a smaller --passage-tokens, "
            "--thinking or --num-examples, or a larger --max-model-len"
        )

    def limits(self, count: int) -> ResponseLimits:
        """The limits of the response to a request for `count` examples. Raises PromptTooLong if they do not fit."""
        max_tokens = self.num_examples(count, count) * self._example_tokens
        enforces_longest_text = self.encoding.style == "positional" and self.client.enforces_longest_text
        if not self.examples or self.max_thinking_tokens or not enforces_longest_text:
            return ResponseLimits(max_tokens)
        grown = _TEXT_GROWTH * len(self._written(self._shown[0]))
        return ResponseLimits(max_tokens, max(grown, _MIN_LONGEST_TEXT, _CHARS_PER_WORD * self.words))

    @cached_property
    def _shown(self) -> list[Example]:
        """The longest formatting examples, as many as a prompt shows."""
        longest_first = sorted(map(Example, self.examples), key=lambda each: len(self._written(each)), reverse=True)
        return longest_first[: self.shots]

    def _written(self, example: Example) -> str:
        """The example as the model writes it, with as many turns as a conversation can have."""
        turns = self.encoding.format.with_turn_count(example)
        return json.dumps(self.encoding.write(turns), ensure_ascii=False)

    def _prompt_tokens(self, num_examples: int) -> int:
        """The number of tokens of the longest prompt that asks for `num_examples`."""
        passage = self.content.passage
        tokens = self.client.count_tokens(chat_prompt(self.encoding, self._shown, num_examples, self.content))
        # If there are too few formatting examples, accepted examples are shown too. Otherwise the parent, an accepted
        # example, replaces one of them.
        num_accepted = self.shots - len(self._shown)
        tokens += num_accepted * self._example_tokens or self._example_tokens // 2
        if passage and self.encoding.format.context_is_given:  # accepted examples have passages too
            tokens += max(1, num_accepted) * self._tokens(passage)
        return tokens

    @cached_property
    def _example_tokens(self) -> int:
        """The maximum number of tokens of a new example."""
        growth = _MAX_GROWTH
        if self.examples:
            usual = self._tokens(self._written(self._shown[0]))
        else:
            usual, growth = max_example_tokens(self.encoding), 1
        return max(usual * growth, usual + _TOKENS_PER_WORD * self.words) + _EXTRA_TOKENS

    def _tokens(self, text: str) -> int:
        """The number of tokens of a text, without those of the chat template."""
        return self.client.count_tokens([{"role": "user", "content": text}]) - self._template_tokens

    @cached_property
    def _template_tokens(self) -> int:
        return self.client.count_tokens([{"role": "user", "content": "."}]) - 1


def max_uncommitted_requests(count: int, num_examples: int, clients: Sequence[ModelClient]) -> int:
    """The default of --concurrency: a multiple of the servers' slots, but at most twice what the count needs.

    Commits are in order, so a long completion delays all later ones; with fewer uncommitted requests, the servers
    would be idle. The slowest of several models delays the others in the same way.
    """
    multiple = _REQUESTS_PER_SLOT if len(clients) == 1 else _REQUESTS_PER_SLOT_OF_SEVERAL
    return max(1, min(multiple * sum(client.slots for client in clients), 2 * count // num_examples))


def max_example_tokens(encoding: PromptEncoding) -> int:
    """The number of tokens that a written example may take, estimated from the schema alone."""
    fields = leaf_schemas({"properties": encoding.field_schemas})
    return sum(_tokens(part, is_passage=path == encoding.format.roles.context) for path, part in fields)


def _tokens(schema: Schema, *, is_passage: bool) -> int:
    """The number of tokens that a value of this schema may take."""
    if is_constant(schema):
        return 0
    if fixed_labels(schema) or schema.get("type") in ("integer", "number", "boolean"):
        return _VALUE_TOKENS
    if parts := schema.get("properties"):
        return sum(_VALUE_TOKENS + _tokens(part, is_passage=is_passage) for part in parts.values())
    if prefix := schema.get("prefixItems"):
        return sum(_tokens(part, is_passage=is_passage) for part in prefix)
    if schema.get("items", False) is not False:
        count = max(schema.get("minItems", 0), min(_MAX_ITEMS, schema.get("maxItems", _MAX_ITEMS)))
        return int(count) * (_tokens(schema["items"], is_passage=is_passage) // 2)
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        return max(_tokens(branch, is_passage=is_passage) for branch in branches)
    default = _PASSAGE_TOKENS if is_passage else _TEXT_TOKENS
    shortest = int(schema.get("minLength", 0)) // _CHARS_PER_TOKEN
    longest = int(schema["maxLength"]) // _CHARS_PER_TOKEN + 1 if "maxLength" in schema else default
    return _VALUE_TOKENS + max(min(longest, _MAX_TEXT_TOKENS), 2 * shortest)
