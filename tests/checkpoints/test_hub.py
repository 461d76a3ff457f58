"""The Hub as a source, against a small server on loopback that answers as the Hub does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest

from datacreate.checkpoints import pull, verify
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import Heard, checkpoint_files, make_preset, write_files

COMMIT = "a" * 40
FILES = checkpoint_files() | {"pytorch_model.bin": b"pickle", "onnx/config.json": b"{}"}


class Hub(BaseHTTPRequestHandler):
    """`org/tiny` at COMMIT, also known as `main`."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = urlparse(self.path).path
        siblings = [{"rfilename": name, "size": len(content)} for name, content in FILES.items()]
        tree = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in FILES.items()]
        if path.startswith("/api/models/org/tiny/tree/"):
            self._send(json.dumps(tree).encode(), body)
        elif path.startswith("/api/models/org/tiny"):
            self._send(json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode(), body)
        elif path.startswith(f"/org/tiny/resolve/{COMMIT}/"):
            self._send(FILES[path.split("/", 5)[5]], body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a run's own setting; only a pull goes online
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_repository_arrives_without_its_pickles_and_locks_its_commit(home: Path, hub: None) -> None:
    preset = make_preset({"hub": "org/tiny", "revision": "main"}, untested=True)
    folder = pull(preset)
    arrived = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert arrived == {*checkpoint_files(), "datacreate.json"}
    assert verify(preset).good
    assert json.loads((home / "locks" / "tiny.json").read_text())["revision"] == COMMIT


def test_a_repository_that_is_not_there_is_one_line(home: Path, hub: None) -> None:
    with pytest.raises(CheckpointError, match=r"cannot pull tiny: hub org/none@main: no repository org/none"):
        pull(make_preset({"hub": "org/none", "revision": "main"}))


def test_without_a_network_the_next_source_serves(
    home: Path, tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    source = write_files(tmp_path / "src", checkpoint_files())
    preset = make_preset({"hub": "org/tiny", "revision": "main"}, {"path": str(source)}, untested=True)
    pull(preset, heard)
    assert any(stage.startswith("hub org/tiny@main: out of reach (") for stage in heard.stages)
    assert verify(preset).good
