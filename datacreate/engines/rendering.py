"""Messages to token ids and back, as a checkpoint's own files say; no model is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from datacreate.checkpoints import Checkpoint
from datacreate.engines.base import Messages
from datacreate.errors import EngineError
from datacreate.tasks.prompt import plain_prompt, without_system


class Renderer:
    """A checkpoint's tokenizer, chat template and longest context, each read when it is first wanted.

    Whatever reads raises EngineError if the installed transformers cannot.
    """

    def __init__(self, checkpoint: Checkpoint, switches: Mapping[str, Any] | None = None) -> None:
        self._folder = checkpoint.path
        self._remote_code = checkpoint.remote_code
        self.switches = dict(switches or {})  # of the chat template
        self._first_tokens: dict[str, int] = {}  # of the choices seen so far

    @cached_property
    def positions(self) -> int | None:
        """The most tokens of context that the model can take; None if its configuration does not say."""
        from transformers import AutoConfig

        config = self._read("config.json", AutoConfig.from_pretrained).get_text_config()
        found = getattr(config, "max_position_embeddings", None)
        return None if found is None else int(found)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return self._read("the tokenizer", AutoTokenizer.from_pretrained)

    def _read(self, what: str, read: Callable[..., Any]) -> Any:
        try:
            return read(self._folder, local_files_only=True, trust_remote_code=self._remote_code)
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise EngineError(
                f"{self._folder}: {what} cannot be read ({' '.join(str(error).split())[:200]}); is it a "
                "model of an architecture that the installed transformers has, and whole?"
            ) from error

    @property
    def has_chat_template(self) -> bool:
        """Whether the checkpoint brings one; a base model does not."""
        return self._tokenizer.chat_template is not None

    def render(self, messages: Messages) -> list[int]:
        """The prompt's token ids, chat template included; of a base model, which has none, plain text."""
        if not self.has_chat_template:
            return [int(token) for token in self._tokenizer(plain_prompt(messages))["input_ids"]]
        has_system = "system" in self._tokenizer.chat_template
        rendered = self._tokenizer.apply_chat_template(
            list(messages) if has_system else without_system(messages),
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
            **self.switches,
        )
        return [int(token) for token in rendered]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text that a model wrote, without its special tokens."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def first_token(self, choice: str) -> int:
        """The id of the token that a choice begins with; -1 where there is no text, so no token."""
        if choice not in self._first_tokens:
            found = self._tokenizer.encode(choice, add_special_tokens=False)
            self._first_tokens[choice] = int(found[0]) if found else -1
        return self._first_tokens[choice]

    def tells_apart(self, choices: Sequence[str]) -> bool:
        """Whether each of these begins with a token, and each with another."""
        tokens = [self.first_token(choice) for choice in choices]
        return -1 not in tokens and len(set(tokens)) == len(tokens)
