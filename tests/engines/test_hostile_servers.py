"""Whatever a server sends: nothing is sent elsewhere, memory stays flat, numbers and names do no harm."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import EngineError, ServersGone, UsageError
from datacreate.runs.directory import RunDirectory
from tests.engines.asking import YES_NO, is_exact, make
from tests.inprocess import typed
from tests.servers import Fault, Handler, Server, sending

MIB = 2**20


@pytest.mark.parametrize("after", [0, 3])
def test_a_redirect_to_another_host_is_never_followed(
    tmp_path: Path, server: Server, other: Server, after: int
) -> None:
    there = sending(b"", 307, Location=f"{other.url}/v1/chat/completions")
    if after:
        server.fault_after, server.later_fault = after, there
    else:
        server.fault = there
    with pytest.raises(EngineError, match=r"redirects to another address \(HTTP 307\); use that address"):
        make(tmp_path / "run", server)
    assert not other.asked


class Flood:
    """A fault: an answer without an end; counts what was taken of it."""

    def __init__(self, block: bytes, **headers: str) -> None:
        self._block = block
        self._headers = headers
        self.sent: list[int] = []

    def __call__(self, handler: Handler, body: dict[str, Any]) -> None:
        self.sent.append(0)
        handler.close_connection = True
        handler.start(200, Connection="close", **self._headers)
        while self.sent[-1] < 1500 * MIB:
            handler.wfile.write(self._block)
            self.sent[-1] += len(self._block)


@pytest.mark.parametrize(
    ("flood", "says"),
    [
        (Flood(b" " * MIB), "an answer of more than 8 MB"),
        (Flood(gzip.compress(b" " * 64 * MIB), Content_Encoding="gzip"), "it sends compressed answers"),
    ],
    ids=["endless", "gzip bomb"],
)
def test_an_answer_is_read_up_to_a_limit_and_never_decompressed(
    tmp_path: Path, server: Server, flood: Flood, says: str
) -> None:
    server.fault_after, server.later_fault = 3, flood
    with pytest.raises(ServersGone, match=says):
        make(tmp_path / "run", server, wait=0.1)
    assert flood.sent
    assert max(flood.sent) < 64 * MIB  # the limit, and what the system's buffers hold


@pytest.mark.parametrize("tokens", [1e308, -5, math.nan, math.inf, "many", True, {"a": 1}, None])
def test_token_counts_that_make_no_sense_do_no_harm(tmp_path: Path, server: Server, tokens: Any) -> None:
    server.usage = {"prompt_tokens": tokens, "completion_tokens": tokens}
    make(tmp_path / "run", server, count=10)
    summary = make(tmp_path / "run", server, count=20)  # a resume adds them up
    is_exact(tmp_path / "run", 20)
    assert 0 <= summary["generated_tokens"] < 10**12


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "words for tokens": ({"tokens": ["a", "b"]}, "/tokenize returns no list of token ids"),
    "a text for tokens": ({"tokens": "abc"}, "/tokenize returns no list of token ids"),
    "no model": ({"cards": []}, "it serves no model; load one first"),
    "half a character in its name": (
        {"cards": [{"id": "a\ud800b"}]},
        "the name of its model is not printable",
    ),
    "a colour in its name": ({"cards": [{"id": "\x1b[31mred"}]}, "the name of its model is not printable"),
    "a name that is none": ({"cards": [{"id": {}}]}, "the name of its model is not printable"),
    "two models": ({"cards": [{"id": "a"}, {"id": "b"}]}, "it serves a, b; select one with --model"),
    "no list of models": ({"cards": "many"}, "/v1/models returns no list of models"),
}


@pytest.mark.parametrize("what", ODD)
def test_oddities_are_one_line_that_says_what_they_are(tmp_path: Path, what: str) -> None:
    features, says = ODD[what]
    with Server(**features) as server, pytest.raises(EngineError, match=says) as refused:
        make(tmp_path / "run", server, example=YES_NO, verify="keep")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("card", [{"id": [1]}, {"id": "scripted", "max_model_len": 1e999}])
def test_a_card_that_makes_no_sense_does_not_end_a_run(
    tmp_path: Path, server: Server, other: Server, card: Any
) -> None:
    server.cards = [card]
    make(tmp_path / "run", server, other, model="scripted")
    is_exact(tmp_path / "run", 40)


@pytest.mark.parametrize("key", ["open\nsesame", "öffne dich", "sesame street"])
def test_a_key_that_no_header_holds_is_one_line(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("DATACREATE_API_KEY", key)
    with pytest.raises(
        UsageError, match=r"\$DATACREATE_API_KEY contains a space, a line break or a non-ASCII"
    ) as it:
        make(tmp_path / "run", server)
    assert key not in str(it.value)


def test_a_certificate_that_nobody_vouches_for_is_one_line_and_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed here")
    pem = tmp_path / "server.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=me"
    subprocess.run(
        [
            *command.split(),
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            pem,
            "-out",
            tmp_path / "cert",
        ],
        check=True,
        capture_output=True,
    )
    with pem.open("a") as both:
        both.write((tmp_path / "cert").read_text())
    with Server(tls=pem) as server:
        with pytest.raises(EngineError, match=r"certificate is not trusted.*set SSL_CERT_FILE to its CA's"):
            make(tmp_path / "run", server)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
        make(tmp_path / "run", server)
    is_exact(tmp_path / "run", 40)


def test_words_of_a_server_are_text_wherever_they_stand(tmp_path: Path) -> None:
    name = "m`|<b>x</b>![a](http://e.invalid/i.png)*|[red]"
    with Server(model=name) as server:
        make(tmp_path / "run", server, example=YES_NO, verify="keep")
        card = (tmp_path / "run" / "README.md").read_text()
        assert "<b>" not in card
        assert "[a](" not in card
        assert RunDirectory(tmp_path / "run").summary()["verification"]["model"] == name
        (tmp_path / "example.json").write_text(json.dumps(YES_NO))
        bad: Fault = sending({"error": {"message": "\x1b[31mred\u202e [bold]x[/]"}}, 400)
        server.fault = bad
        words = [
            "create",
            "--example",
            tmp_path / "example.json",
            "--run-dir",
            tmp_path / "other",
            "--count",
            5,
        ]
        ended = typed(*map(str, words), "--url", server.url)
    assert ended.code == 1
    assert "\x1b" not in ended.err
    assert "[bold]x[/]" in ended.failure
    shown = typed("show", str(tmp_path / "run"))
    assert name in shown.out
