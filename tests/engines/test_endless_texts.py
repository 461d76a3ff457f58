"""Texts without an end: a model that repeats itself inside a JSON string delays only what it writes."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from datacreate.checkpoints.checkpoint import resolve
from datacreate.engines import EngineOptions
from datacreate.engines.factory import LocalModel, make_client
from datacreate.engines.llamacpp import LLAMACPP
from datacreate.engines.request import Completion, Request, Sampling
from datacreate.errors import EngineError
from datacreate.runs.directory import RunDirectory
from tests.engines.helpers import MESSAGES, YES_NO, answers, make
from tests.support import making
from tests.support.making import COMMONSENSE, commits, train
from tests.support.scripted import ScriptedClient, answering
from tests.support.servers import Server
from tests.support.tiny_model import write_gguf

CHARS_PER_TOKEN = 4


def endless(every: int) -> Any:
    """Like `answering`, but the first text of each nth request has no end: the schema or max_tokens ends it."""
    usual = answering()

    def script(request: Request) -> Completion:
        written = usual(request)
        if request.id < 0 or request.id % every:
            return written
        items, most = json.loads(written.text), CHARS_PER_TOKEN * request.sampling.max_tokens
        item = json.loads(request.schema or "")["items"]
        key, schema = (0, item["prefixItems"][0]) if "prefixItems" in item else ("question", {})
        items[0][key] = ("and on " * most)[: schema.get("maxLength")]
        text = json.dumps(items)
        if len(text) <= most:
            return Completion(request.id, text, "stop", 50, len(text) // CHARS_PER_TOKEN)
        return Completion(request.id, text[:most], "length", 50, request.sampling.max_tokens)

    return script


def made(run: Path, server: Server, **changes: Any) -> tuple[list[int], dict[str, Any], dict[str, Any]]:
    """The generated tokens of each request of a run, its rejects, and its sampling settings."""
    summary = make(run, server, **changes)
    tokens = [commit.generated_tokens for commit in commits(run)]
    return tokens, summary["rejected"], RunDirectory(run).read_config().spec.sampling


def test_llama_cpp_ends_the_text_and_writes_the_other_examples(tmp_path: Path) -> None:
    script = endless(every=3)
    with Server(kind="llamacpp", script=script, slots=1) as server:
        tokens, rejected, sampling = made(tmp_path / "run", server, strategy="naive")
        assert sampling["longest_text"] == 4 * len(json.dumps([COMMONSENSE["question"], COMMONSENSE["options"]]))
        assert max(tokens) < 0.6 * int(sampling["max_tokens"])
        endless_ones = [
            commit
            for commit in commits(tmp_path / "run")
            if any(reject.reason == "truncated" for reject in commit.rejects)
        ]
        assert rejected["truncated"] == len(endless_ones) > 1
        assert all(len(commit.accepted) == 4 for commit in endless_ones[:-1])
        make(tmp_path / "run", server, count=50, strategy="naive", max_tokens=sampling["max_tokens"])  # resumed
    assert RunDirectory(tmp_path / "run").read_config().spec.sampling == sampling


def test_the_same_answers_give_the_same_rows(tmp_path: Path, model: str) -> None:
    def client(seed: int, dies_after: int | None = None) -> ScriptedClient:
        shuffle = random.Random(seed)
        client = ScriptedClient(endless(every=3), shuffle=shuffle, dies_after=dies_after)
        client.enforces_longest_text = True
        return client

    for seed in (1, 2):
        making.make(tmp_path / str(seed), model, client(seed))
    with pytest.raises(EngineError):
        making.make(tmp_path / "resumed", model, client(1, dies_after=4))
    making.make(tmp_path / "resumed", model, client(2))
    assert train(tmp_path / "1") == train(tmp_path / "2") == train(tmp_path / "resumed")
    assert RunDirectory(tmp_path / "1").summary()["rejected"]["truncated"] > 1


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llamacpp", {"max_tokens": 1500}),
        ("llamacpp", {"recipe": "paper", "example": YES_NO}),
        ("llamacpp", {"thinking": 200}),
        ("vllm", {}),
        ("bare", {}),
    ],
)
def test_elsewhere_max_tokens_is_the_only_limit(tmp_path: Path, kind: Any, settings: dict[str, Any]) -> None:
    with Server(kind=kind, script=endless(every=5)) as server:
        tokens, _, sampling = made(tmp_path / "run", server, **settings)
        assert not any("maxLength" in json.dumps(body) for body in server.bodies)
        assert max(tokens) == server.bodies[-1]["max_tokens"]
    assert sampling["max_tokens"] == settings.get("max_tokens", sampling["max_tokens"])
    assert "longest_text" not in sampling


def test_max_tokens_do_not_count_the_chat_template(tmp_path: Path) -> None:
    class LongTemplate(Server):
        def _own(self, path: str, body: Any) -> dict[str, Any] | None:
            found = super()._own(path, body)
            if path == "/tokenize" and found and "messages" in body:
                return {**found, "tokens": [*found["tokens"], *range(300)]}
            return found

    limits = []
    for number, kind in enumerate((Server, LongTemplate)):
        with kind() as server:
            limits.append(made(tmp_path / str(number), server)[2]["max_tokens"])
    assert limits[0] == limits[1]


@pytest.mark.skipif(not LLAMACPP.build(), reason="llama.cpp (xllamacpp) is not installed here")
def test_a_real_llama_cpp_ends_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {'"', "Ġ"}  # a quotation mark, or the space between the parts of JSON
    monkeypatch.setattr("tests.support.tiny_model._logit", lambda token: -60.0 if ends & {*token} else 3.0)
    checkpoint = resolve(str(write_gguf(tmp_path / "endless.gguf")), "instruct")
    options = EngineOptions(engine="llamacpp", max_num_seqs=2, max_model_len=2048)
    text = {"type": "string"}
    schema = json.dumps({"type": "array", "prefixItems": [text, text], "minItems": 2, "maxItems": 2})
    with closing(make_client(LocalModel(checkpoint, options), count=5)) as client:
        client.start()
        assert client.enforces_longest_text
        usual = Request(0, MESSAGES, schema, Sampling(400))
        bounded = Request(1, MESSAGES, schema, Sampling(400, longest_text=50))
        without_end, ended = answers(client, usual, bounded)
    assert (without_end.finish_reason, without_end.generated_tokens) == ("length", 400)
    assert ended.finish_reason == "stop"
    assert all(50 < len(each) <= 50 + 64 for each in json.loads(ended.text))
