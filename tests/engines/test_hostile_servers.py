"""Whatever a server sends: no redirect is followed, memory stays bounded, numbers and names do no harm."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import EngineError, ServersUnavailable
from datacreate.runs.directory import RunDirectory
from tests.engines.helpers import YES_NO, make
from tests.support.inprocess import typed
from tests.support.servers import Handler, Server, refusing, sending

MIB = 2**20


@pytest.mark.parametrize(("after", "code"), [(0, 1), (3, 75)])
def test_no_redirect_is_followed(tmp_path: Path, server: Server, other: Server, after: int, code: int) -> None:
    """A server that was in use before may be behind a proxy that redirects for a while."""
    server.fault_after = after
    server.later_fault = sending(b"", 307, Location=f"{other.url}/v1/chat/completions")
    server.fault = None if after else server.later_fault
    says = r"redirects to another address \(HTTP 307\); use that address"
    with pytest.raises(EngineError, match=says) as failure:
        make(tmp_path / "run", server, wait=0.3)
    assert failure.value.exit_code == code
    assert not other.requests


class Flood:
    """A fault: an answer without an end; counts the bytes that the client accepted."""

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
        (Flood(b" " * MIB), "it returned more than 8 MB"),
        (Flood(gzip.compress(b" " * 64 * MIB), Content_Encoding="gzip"), "it sends compressed responses"),
    ],
    ids=["endless", "gzip bomb"],
)
def test_an_answer_is_read_up_to_a_limit_and_never_decompressed(
    tmp_path: Path, server: Server, flood: Flood, says: str
) -> None:
    server.fault_after, server.later_fault = 3, flood
    with pytest.raises(ServersUnavailable, match=says):
        make(tmp_path / "run", server, wait=0.1)
    assert flood.sent
    assert max(flood.sent) < 256 * MIB  # the limit, and the buffers of the system, larger while it is busy


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed here")
def test_an_untrusted_certificate_is_one_line_and_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem, certificate = tmp_path / "server.pem", tmp_path / "certificate"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=me"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {pem} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    pem.write_text(pem.read_text() + certificate.read_text())
    with Server(tls=pem) as server:
        with pytest.raises(EngineError, match="certificate is not trusted; set SSL_CERT_FILE to the file of"):
            make(tmp_path / "run", server)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        make(tmp_path / "run", server)


def test_texts_of_a_server_are_escaped(tmp_path: Path) -> None:
    name = "m`|<b>x</b>![a](http://e.invalid/i.png)*|[red]"
    (tmp_path / "example.json").write_text(json.dumps(YES_NO))
    words = ["create", "--example", tmp_path / "example.json", "--run-dir", tmp_path / "other", "--count", 5]
    with Server(model=name) as server:
        make(tmp_path / "run", server, example=YES_NO, verify="keep")
        server.fault = refusing(400, "\x1b[31mred\u202e [bold]x[/]")
        ended = typed(*map(str, words), "--url", server.url)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "<b>" not in card
    assert "[a](" not in card
    assert RunDirectory(tmp_path / "run").summary()["verification"]["model"] == name
    assert ended.code == 1
    assert "\x1b" not in ended.err
    assert "[bold]x[/]" in ended.failure
    assert name in typed("show", str(tmp_path / "run")).out
