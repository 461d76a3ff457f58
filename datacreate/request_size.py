"""The size of a request: how many examples it asks for, how long its answer may be, and how many run at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from datacreate.engines.engine import Engine
from datacreate.errors import PromptTooLong
from datacreate.formats.example import Example
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.formats.without_example import most_tokens
from datacreate.prompts.generation import RequestContent, chat_prompt

DEFAULT_NUM_EXAMPLES = 5
"""Examples per request, as in the paper; fewer if they do not fit the context length."""

_MAX_GROWTH = 2
"""How many times longer than the formatting example a new example can be."""

_EXTRA_TOKENS = 32
"""Additional tokens per example, so that answers to a very short example are not truncated."""

_TOKENS_PER_WORD, _CHARS_PER_WORD = 2, 20
"""What one word of --attributes may take: more than an English word does."""

_TEXT_GROWTH, _MIN_LONGEST_TEXT = 4, 400
"""How many times longer than the whole formatting example one text can be, and the characters that it always can have.
Longer texts are those that have no end."""


@dataclass(frozen=True)
class LongestPrompt:
    """What the longest prompt of a run shows: the longest `shots` of the formatting examples, and `content`.

    `words`: the most words that --attributes ask for; 0 without such a range.
    """

    encoding: PromptEncoding
    examples: Sequence[Example]  # the formatting examples
    shots: int
    content: RequestContent
    words: int

    def fit(
        self, engine: Engine, thinking: int, most: int, *, fixed: bool = True
    ) -> tuple[int, dict[str, int]]:
        """The examples that a request to this engine asks for (`most`, or fewer), and the limits of `Sampling`.

        `thinking`: the most tokens of thinking before the answer. Raises PromptTooLong if none fits.
        """

        def tokens(text: str) -> int:
            return engine.count_tokens([{"role": "user", "content": text}]) - template

        encoding, shots, content, words = self.encoding, self.shots, self.content, self.words
        template = engine.count_tokens([{"role": "user", "content": "."}]) - 1
        shown = sorted(self.examples, key=lambda each: len(self._written(each)), reverse=True)[:shots]
        usual = tokens(self._written(shown[0])) if shown else most_tokens(encoding)
        longest = max(usual * (_MAX_GROWTH if shown else 1), usual + _TOKENS_PER_WORD * words)
        example_tokens = longest + _EXTRA_TOKENS
        # If these are too few, accepted examples are also shown; else one in the place of one of them, the parent.
        accepted = shots - len(shown)
        prompt = engine.count_tokens(chat_prompt(encoding, shown, most, content))
        prompt += accepted * example_tokens or example_tokens // 2
        if content.passage and encoding.format.context_is_given:  # also those of accepted examples
            prompt += max(1, accepted) * tokens(content.passage)
        for number in [most] if fixed else range(most, 0, -1):
            if prompt + thinking + number * example_tokens <= engine.max_context:
                limits = {"max_tokens": number * example_tokens}
                if shown and not thinking and encoding.style == "positional" and engine.bounds_texts:
                    grown = _TEXT_GROWTH * len(self._written(shown[0]))
                    limits["longest_text"] = max(grown, _MIN_LONGEST_TEXT, _CHARS_PER_WORD * words)
                return number, limits
        raise PromptTooLong(
            f"a prompt of {prompt} tokens, {thinking} tokens of thinking and {most if fixed else 1} new example(s) of "
            f"up to {example_tokens} tokens exceed the model's context length of {engine.max_context}; use a shorter "
            "--example or --instruction, fewer --shots, fewer words in --attributes, a smaller --passage-tokens, "
            "--thinking or --num-examples, or a larger --max-model-len"
        )

    def _written(self, each: Example) -> str:
        return json.dumps(self.encoding.write(self.encoding.format.with_all_turns(each)), ensure_ascii=False)


def most_in_flight(count: int, num_examples: int, engines: Sequence[Engine]) -> int:
    """The most requests at once: a multiple of what the engines process at once, but no more than twice what the
    count needs.

    Commits are in order, so a long completion delays all later ones; with fewer requests in flight, the engines would
    be idle. The slowest of several models delays the others in the same way.
    """
    multiple = 3 if len(engines) == 1 else 10
    return max(1, min(multiple * sum(engine.slots for engine in engines), 2 * count // num_examples))
