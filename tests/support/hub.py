"""A server on loopback that answers as the Hugging Face Hub does."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlparse

COMMIT = "b" * 40


class Hub:
    """One repository at COMMIT, which is `main`; leaving the block stops the server.

    Hashes are those of `files`; `sent` replaces what is sent for a file, `broken` sends only half of it. While
    `sending` is cleared, no second half is sent.
    """

    def __init__(self, files: dict[str, bytes], repository: str = "models/org/tiny") -> None:
        self.files, self.repository = files, repository
        self.sent: dict[str, bytes] = {}
        self.broken: set[str] = set()
        self.sending = threading.Event()
        self.sending.set()
        self.requests: list[str] = []  # "METHOD path range"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def entry(self, name: str) -> dict[str, Any]:
        """A file as the Hub lists it."""
        content = self.files[name]
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        lfs = {"oid": sha256(content).hexdigest(), "size": len(content), "pointerSize": 100}
        large = {"lfs": lfs} if name.endswith((".safetensors", ".gguf")) else {}
        return {"type": "file", "path": name, "size": len(content), "oid": oid, **large}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlparse(self.path).path)
        hub.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        files = f"/{hub.repository.removeprefix('models/')}/resolve/{COMMIT}/"
        if path.startswith(f"/api/{hub.repository}/tree/"):
            self._send(json.dumps([*map(hub.entry, hub.files)]).encode())
        elif path.startswith(f"/api/{hub.repository}"):
            siblings = [{"rfilename": name} for name in hub.files]
            about = {"id": hub.repository.partition("/")[2], "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(about).encode())
        elif path.startswith(files):
            self._send_file(path.removeprefix(files))
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def _send_file(self, name: str) -> None:
        content = self.hub.sent.get(name, self.hub.files[name])
        tag = sha256(self.hub.files[name]).hexdigest()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self._send(content[start:], tag, len(content) if start else 0, name in self.hub.broken)

    def _send(self, content: bytes, tag: str = "x", whole: int = 0, broken: bool = False) -> None:
        self.send_response(206 if whole else 200)
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        if whole:
            self.send_header("Content-Range", f"bytes {whole - len(content)}-{whole - 1}/{whole}")
        self.end_headers()
        if self.command == "GET":
            half = len(content) // 2
            self.wfile.write(content[:half])
            self.wfile.flush()
            if "/resolve/" in self.path:
                self.hub.sending.wait()
            if not broken:
                with suppress(OSError):  # the client has ended
                    self.wfile.write(content[half:])

    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""
