"""OpenAI-compatible servers on loopback that answer from a script, correctly or not, like vLLM or llama.cpp.

They use only the standard library, so that a test controls every byte of a response.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self
from zlib import crc32

from datacreate.engines.request import Request, Sampling
from tests.support.scripted import Script, answering

MODEL = "scripted"

_CONTEXT = 4096
_LETTER = re.compile(r"Answer with the letter ([A-Z])\.")
_NAMES = re.compile(r"Answer with one of: (.*)\.$", re.MULTILINE)
_OPTIONS = re.compile(r"^([A-Z])\. ", re.MULTILINE)


class Handler(BaseHTTPRequestHandler):
    """One connection; requests go to the `Server`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    owner: Server  # set in a subclass for each server

    def do_GET(self) -> None:
        self._handle(None)

    def do_POST(self) -> None:
        self._handle(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _handle(self, body: Any) -> None:
        try:
            self.owner.handle(self, body)
        except OSError:  # the client closed the connection, or the server is dead
            self.close_connection = True

    def reply(self, document: Any, status: int = 200, **headers: str) -> None:
        """A whole response: bytes as they are, anything else as JSON."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.start(status, **{"Content-Length": str(len(raw)), **headers})
        self.wfile.write(raw)
        self.wfile.flush()

    def start(self, status: int, **headers: str) -> None:
        """The head of a response; `_` stands for `-` in the headers' names."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


Fault = Callable[[Handler, dict[str, Any]], None]


@dataclass
class Server:
    """One server in threads of its own. What it does can be changed while it runs."""

    kind: Literal["vllm", "llamacpp", "bare"] = "vllm"
    script: Script = field(default_factory=answering)
    model: str = MODEL
    latency: float = 0.0  # seconds an answer takes
    slots: int = 1000  # requests processed at once; the others wait
    holds: int | None = None  # requests accepted at once; one more is refused with 429
    obeys: bool = True  # whether it enforces schemas
    own_schema_field: bool = True  # it is llama.cpp with llguidance, or a vLLM that knows structural tags
    system_role: int = 200  # the status of a prompt with a system role
    scores: Literal["real", "none", "others", "uniform"] = "real"
    right: Callable[[str, list[str]], str] = lambda said, choices: min(
        choices, key=lambda each: crc32(f"{said}{each}".encode())
    )  # the choice that gets the best score
    says: Callable[[str], dict[str, Any]] = lambda text: {"content": text}  # the message with an answer
    reason: str | None = None  # replaces the finish reason
    thought: int | None = None  # tokens of thinking that it reports with an answer
    fault: Fault | None = None  # answers all chat requests, if set
    fault_after: int | None = None  # after this number of answers `later_fault` answers all but the server tests
    later_fault: Fault | None = None
    key: str | None = None  # required API key
    tls: Path | None = None  # its certificate and key, in one file
    port: int = 0
    models_status: int = 200  # the status of the list of models
    cards: Any = None  # replaces the list of models; bytes replace the whole response
    tokens: Any = None  # replaces the tokens of /tokenize
    page: bytes | None = None  # response for unknown paths, instead of 404
    once: dict[str, int] = field(default_factory=dict)  # path -> the status of its next response
    requests: Counter[str] = field(default_factory=Counter)  # path -> requests
    answered: int = 0  # real requests, without those of server tests
    out: int = 0
    max_out: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    on_answer: Callable[[int], object] = lambda _: None  # called with `answered`; other answers wait meanwhile
    on_models: Callable[[int], object] = lambda _: None  # called with the number of requests for its models

    def __enter__(self) -> Self:
        self.stopping = threading.Event()
        self._lock = threading.RLock()
        self._slots = threading.Semaphore(self.slots)
        self._sockets: list[socket.socket] = []
        self.out = 0
        handler = type("Own", (Handler,), {"owner": self})
        self._http = _Http(("127.0.0.1", self.port), handler)
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.tls)
            # The handshake is left to the thread of the connection: a silent client must not block `stop`.
            listener = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
            self._http.socket = listener
        self._http.sockets = self._sockets
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Break all connections and stop listening."""
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def start_again(self) -> None:
        """Listen at the same address."""
        self.__enter__()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def handle(self, handler: Handler, body: Any) -> None:
        """Answer one request."""
        path = handler.path
        with self._lock:
            self.requests[path] += 1
        if self.key and handler.headers["Authorization"] != f"Bearer {self.key}":
            return handler.reply({"error": {"message": "wrong key"}}, 401)
        if status := self.once.pop(path, None):
            return handler.reply({"error": {"message": "not now"}}, status)
        if path == "/v1/models":
            self.on_models(self.requests[path])
            usual = {"id": self.model, "object": "model", "root": f"/models/{self.model}"}
            usual |= {"max_model_len": _CONTEXT} if self.kind == "vllm" else {}
            cards = [usual] if self.cards is None else self.cards
            return handler.reply(cards if isinstance(cards, bytes) else {"data": cards}, self.models_status)
        if path == "/v1/chat/completions":
            return self._chat(handler, body)
        if (own := self._own(path, body)) is not None:
            return handler.reply(own)
        not_found = {"error": {"message": "Not Found"}}
        return handler.reply(not_found, 404) if self.page is None else handler.reply(self.page)

    def _own(self, path: str, body: Any) -> dict[str, Any] | None:
        """The answer of a path that only one kind of server has."""
        if path == "/version" and self.kind == "vllm":
            return {"version": "0.0 (scripted)"}
        if path == "/props" and self.kind == "llamacpp":
            settings = {"n_ctx": _CONTEXT}
            return {"total_slots": self.slots, "build_info": "b0", "default_generation_settings": settings}
        if path == "/apply-template" and self.kind == "llamacpp":
            return {"prompt": "".join(message["content"] for message in body["messages"])}
        if path == "/tokenize" and self.kind != "bare":
            text = body.get("prompt", body.get("content"))
            if text is None:
                text = "".join(message["content"] for message in body["messages"])
            tokens = [ord(letter) for letter in text[::4]] if self.tokens is None else self.tokens
            extra = {"count": len(text), "max_model_len": _CONTEXT} if self.kind == "vllm" else {}
            return {"tokens": tokens, **extra}
        return None

    def _chat(self, handler: Handler, body: dict[str, Any]) -> None:
        if body["model"] != self.model:
            return handler.reply({"error": {"message": "no such model"}}, 404)
        with self._lock:
            self.bodies.append(body)
        if self.system_role != 200 and body["messages"][0]["role"] == "system":
            return handler.reply({"error": {"message": "System role not supported"}}, self.system_role)
        if not self.own_schema_field and ("grammar" in body or "format" in body.get("response_format", ())):
            return handler.reply({"error": {"message": "failed to parse grammar"}}, 400)
        with self._lock:
            if self.holds is not None and self.out >= self.holds:
                return handler.reply({"error": {"message": "busy"}}, 429)
            self.out += 1
            self.max_out = max(self.max_out, self.out)
        try:
            with self._slots:
                self.stopping.wait(self.latency)
                if fault := self._fault(body):
                    return fault(handler, body)
                answer = self.answer(body)
        finally:
            with self._lock:
                self.out -= 1
        return handler.reply(answer)

    def _fault(self, body: dict[str, Any]) -> Fault | None:
        with self._lock:
            if self.fault_after is not None and self.answered >= self.fault_after and not _tests(body):
                return self.later_fault
        return self.fault

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer by the script."""
        if body.get("logprobs"):
            return self._scores(body)
        schema = schema_of(body)
        with self._lock:
            number = -1 if _tests(body) else self.answered
            request = Request(number, body["messages"], json.dumps(schema), Sampling(body["max_tokens"]))
            completion = self.script(request)
            if number >= 0:
                self.answered += 1
                self.on_answer(self.answered)
        text = completion.text if self.obeys else "Good morning!"
        usage: dict[str, Any] = {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.generated_tokens,
        }
        if self.thought is not None:
            usage["completion_tokens"] += self.thought
            usage["completion_tokens_details"] = {"reasoning_tokens": self.thought}
        message = {"role": "assistant", **self.says(text)}
        choice = {"index": 0, "message": message, "finish_reason": self.reason or completion.finish_reason}
        return {"choices": [choice], "usage": usage}

    def _scores(self, body: dict[str, Any]) -> dict[str, Any]:
        said = body["messages"][-1]["content"]
        letter, names = _LETTER.search(said), _NAMES.search(body["messages"][0]["content"])
        choices = names[1].split(", ") if names else ["A", "B"] if letter else _OPTIONS.findall(said)
        right = letter[1] if letter else self.right(said, choices)
        likeliest: list[dict[str, Any]] = []
        for choice in choices:
            logprob = -0.1 if choice == right and self.scores == "real" else -3.0
            token: dict[str, dict[str, Any]] = {
                "vllm": {"token": f"token_id:{ord(choice[0])}"},
                "llamacpp": {"id": ord(choice[0]), "token": choice},
                "bare": {"token": f" {choice}"},
            }
            likeliest.append({**token[self.kind], "logprob": logprob})
        if self.scores == "others":
            likeliest = [{"token": "token_id:7", "id": 7, "logprob": -0.1}]
        content = [{"token": right, "logprob": -0.1, "top_logprobs": likeliest}]
        choice = {"message": {"content": right}, "finish_reason": "length"}
        choice |= {} if self.scores == "none" else {"logprobs": {"content": content}}
        return {"choices": [choice], "usage": {"prompt_tokens": 20, "completion_tokens": 1}}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    sockets: list[socket.socket]

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.sockets.append(connection)
        return connection, address

    def handle_error(self, *_: Any) -> None:
        pass  # many tests close connections


def schema_of(body: dict[str, Any]) -> Any:
    if grammar := body.get("grammar"):
        return json.loads(grammar.partition("%json ")[2])
    form = body["response_format"]
    return form["format"]["json_schema"] if form["type"] == "structural_tag" else form["json_schema"]["schema"]


def _tests(body: dict[str, Any]) -> bool:
    """Whether a request belongs to a server test: it asks for one item, real ones for more."""
    return bool(body.get("logprobs")) or schema_of(body).get("maxItems") == 1


def refusing(status: int, message: str = "out of cheese") -> Fault:
    """A fault: this status with an error body."""
    return lambda handler, body: handler.reply({"error": {"message": message}}, status)


def sending(document: Any, status: int = 200, **headers: str) -> Fault:
    """A fault: this document instead of an answer."""
    return lambda handler, body: handler.reply(document, status, **headers)


def cut_off(handler: Handler, body: dict[str, Any]) -> None:
    """A fault: half an answer, and then the connection is closed."""
    handler.start(200, Content_Length="5000")
    handler.wfile.write(b'{"choices": [{"mess')
    handler.wfile.flush()
    handler.close_connection = True


def hanging(handler: Handler, body: dict[str, Any]) -> None:
    """A fault: half an answer, and then nothing."""
    cut_off(handler, body)
    handler.owner.stopping.wait(60)


def silent(handler: Handler, body: dict[str, Any]) -> None:
    """A fault: the connection stays open, and nothing is sent."""
    handler.owner.stopping.wait(60)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a condition is true. Fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


def main() -> None:
    """`python -m tests.support.servers NUMBER SECONDS`: starts servers with this latency and prints their addresses."""
    number, latency = int(sys.argv[1]), float(sys.argv[2])
    servers = [Server(script=answering(seed=port), latency=latency).__enter__() for port in range(number)]
    print(",".join(server.url for server in servers), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
