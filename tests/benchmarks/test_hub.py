"""The Hub as a source of data sets, against a small server on loopback that answers as the Hub does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from datacreate.benchmarks import find_benchmark, read_manifest, read_split
from datacreate.offline import NO_DOWNLOADS, OURS
from tests.benchmarks.conftest import claims
from tests.benchmarks.test_copy import as_creak
from tests.process import run

COMMIT = "b" * 40
ROWS = claims(12)
REPO = "amydeng2000/CREAK"


@pytest.fixture(autouse=True)
def nothing_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment as it is before scripts/test, or the import of datacreate, changes it."""
    for name in (*NO_DOWNLOADS, OURS):
        monkeypatch.delenv(name, raising=False)


def _jsonl(first: int, last: int) -> bytes:
    return "".join(json.dumps(as_creak(row)) + "\n" for row in ROWS[first:last]).encode()


FILES = {
    "train.jsonl": _jsonl(0, 8),
    "validation.jsonl": _jsonl(8, 12),
    "creak.py": b"boom",
    "README.md": b"",
}


class Hub(BaseHTTPRequestHandler):
    """CREAK's repository at COMMIT, also known as `main`."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlparse(self.path).path)
        siblings = [{"rfilename": name, "size": len(content)} for name, content in FILES.items()]
        tree = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in FILES.items()]
        if path.startswith(f"/api/datasets/{REPO}/tree/"):
            self._send(json.dumps(tree).encode(), body)
        elif path.startswith(f"/api/datasets/{REPO}"):
            self._send(json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode(), body)
        else:
            self._send(FILES[path.removeprefix(f"/datasets/{REPO}/resolve/{COMMIT}/")], body)

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
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_data_set_is_downloaded_without_its_code_and_its_commit_is_recorded(home: Path, hub: None) -> None:
    ended = run("benchmarks", "import", "creak", "--allow-count-mismatch")
    assert ended.code == 0, ended.err
    creak = find_benchmark("creak")
    assert read_split(creak, "train") == ROWS[:8]
    assert sorted([*read_split(creak, "dev"), *read_split(creak, "test")], key=str) == sorted(
        ROWS[8:], key=str
    )
    manifest = read_manifest(creak)
    assert manifest
    assert manifest.splits["train"].source == f"hub {REPO}@{COMMIT}"


def test_offline_and_unreachable_say_how_to_import_a_copy(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("benchmarks", "import", "piqa")
    by_hand = "hf download ybisk/piqa --repo-type dataset --revision refs/convert/parquet --local-dir DIR"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    for offline, why in [("1", "HF_HUB_OFFLINE is set"), ("0", "Connection refused")]:
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        ended = run(*command)
        assert ended.code == 1
        assert why in ended.failure
        assert by_hand in ended.failure
