"""The model's process: the only file that imports vllm.

Started by `engines.vllm` with the file descriptor of a socket and, if it is to keep to some, the
numbers of its processor cores. It is told `load` once, then
`submit` and `abort`; it answers with lists of (request id, token ids, finish reason, prompt
tokens, error, probabilities of the choices). When the socket closes, it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from datacreate.engines.base import shares

_REASONS = {"stop": "stop", "length": "length", "repetition": "length"}

Answer = tuple[int, list[int], str, int, str | None, list[float]]


class Model:
    """vLLM's engine, fed and emptied one step at a time."""

    def __init__(self, path: str, arguments: dict[str, Any], adapter: str | None = None) -> None:
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        self._adapter = LoRARequest("adapter", 1, adapter) if adapter else None

        self._engine = LLM(
            path,
            seed=0,
            enable_prefix_caching=True,
            disable_log_stats=True,
            # The per-request switch for whitespace is read by no backend, and `auto` takes the
            # backend of the first request for all: both are set on the engine.
            structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
            **arguments,
        ).llm_engine
        self._live: dict[str, list[int]] = {}  # the tokens that each is to score

    @property
    def busy(self) -> bool:
        return bool(self._live)

    def submit(
        self, id: int, prompt: list[int], schema: str | None, sampling: dict[str, Any], choices: list[int]
    ) -> list[Answer]:
        """Add one request; a refusal is the answer to this request, not the end of the others."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        try:
            # No seed per request: on the CPU, vLLM 0.32 dies when the prefill of a seeded
            # request is split ("CPU Generator does not use offset"), and a seed gives the same
            # text only in the same batch anyway. The run's log is the record.
            params = SamplingParams(
                **{name: value for name, value in sampling.items() if value is not None},
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                structured_outputs=StructuredOutputsParams(json=schema) if schema else None,
                logprob_token_ids=choices or None,
            )
            self._engine.add_request(
                str(id), {"prompt_token_ids": prompt}, params, lora_request=self._adapter
            )
        except (VLLMClientError, ValueError, TypeError) as error:
            return [(id, [], "error", len(prompt), str(error).splitlines()[0][:300], [])]
        self._live[str(id)] = choices
        return []

    def abort(self, ids: list[int]) -> None:
        named = [str(id) for id in ids if str(id) in self._live]
        self._engine.abort_request(named)
        for name in named:
            del self._live[name]

    def step(self) -> list[Answer]:
        """One forward pass for everything in flight; what finished with it."""
        answers: list[Answer] = []
        for output in self._engine.step():
            if not output.finished or output.request_id not in self._live:
                continue
            choices = self._live.pop(output.request_id)
            answer = output.outputs[0]
            reason = _REASONS.get(answer.finish_reason, "error")
            error = None if reason != "error" else f"finish reason {answer.finish_reason}"
            prompt_tokens = len(output.prompt_token_ids or ())
            if choices:  # one token was written because vLLM must write one
                scores = shares([answer.logprobs[0][token].logprob for token in choices])
                answers.append((int(output.request_id), [], "stop", prompt_tokens, None, list(scores)))
                continue
            answers.append((int(output.request_id), list(answer.token_ids), reason, prompt_tokens, error, []))
        return answers


def read_all(channel: Connection, inbox: SimpleQueue[tuple[Any, ...] | None]) -> None:
    """Move messages into `inbox` until the other side goes, then put None.

    A thread of its own reads, so that neither side ever waits for the other to stop sending.
    """
    try:
        while True:
            inbox.put(channel.recv())
    except (EOFError, OSError):
        inbox.put(None)


def serve(channel: Connection) -> None:
    """Answer until the other side goes."""
    inbox: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
    Thread(target=read_all, args=(channel, inbox), daemon=True).start()
    if (message := inbox.get()) is None:
        return
    model = Model(*message[1:])
    channel.send("ready")
    while True:
        answers: list[Answer] = []
        while not inbox.empty() or not (model.busy or answers):
            if (message := inbox.get()) is None:
                return
            verb, *rest = message
            if verb == "submit":
                answers += model.submit(*rest)
            else:
                model.abort(*rest)
        if model.busy:
            answers += model.step()
        if answers:
            channel.send(answers)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if cores := [int(core) for core in sys.argv[2:]]:
        os.sched_setaffinity(0, cores)  # before any library counts them
    # A broken pipe is the end of the run, in whatever way it ended.
    gone = contextlib.suppress(BrokenPipeError, ConnectionResetError)
    with gone, Connection(int(sys.argv[1])) as channel:
        serve(channel)


if __name__ == "__main__":
    main()
