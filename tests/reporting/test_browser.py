"""The page in a real browser: plots are drawn, hostile text does nothing, and nothing is loaded."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from datacreate.messages import visible
from datacreate.reporting.render import as_page
from tests.reporting.sample import HOSTILE, sample_report

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(FOUND is None, reason="needs chromium or google-chrome")

QUIET = "--disable-background-networking --disable-component-update --no-first-run --no-default-browser-check"
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def browse(page: Path) -> tuple[str, list[str]]:
    """Open a page in a headless browser with a new profile: its DOM, and the lines on its console."""
    command = [
        str(FOUND),
        *"--headless --no-sandbox --disable-gpu --hide-scrollbars --enable-logging=stderr".split(),
        *QUIET.split(),
        f"--user-data-dir={page.parent / f'profile-{page.stem}'}",
        "--virtual-time-budget=5000",
        "--dump-dom",
        page.as_uri(),
    ]
    environment = {**os.environ, "HOME": str(page.parent)}
    ended = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, [line for line in ended.stderr.splitlines() if "CONSOLE" in line]


def test_plots_are_drawn_and_hostile_text_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(as_page(sample_report("<b>tree</b>")), encoding="utf-8")
    dom, console = browse(tmp_path / "page.html")
    assert console == []
    assert dom.count('class="plotly-graph-div') == 3  # bars, and a learning curve for each test set
    assert dom.count('class="trace bars"') == 4
    assert dom.count('class="trace scatter') == 4
    legend = set(re.findall(r'<text class="legendtext"[^>]*>(.*?)</text>', dom))
    assert legend >= {"human", "&lt;b&gt;tree&lt;/b&gt;"}
    assert "<title>datacreate report</title>" in dom
    assert not re.search(r"<(img|iframe|form)\b|<body class", dom)
    for text in HOSTILE[:7]:
        assert visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in dom


@pytest.fixture
def beacon() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and the paths that were requested from it."""
    requested: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", requested
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_policy_blocks_markup_that_gets_through(tmp_path: Path, beacon: tuple[str, list[str]]) -> None:
    """The same injected markup loads and runs without the policy, and does nothing with it."""
    address, requested = beacon
    injected = f'<img src="http://{address}/pixel.png"><script>document.title = "owned"</script>'
    page = as_page(sample_report()).replace('<main id="main">', f'<main id="main">{injected}')
    (tmp_path / "with.html").write_text(page, encoding="utf-8")
    dom, console = browse(tmp_path / "with.html")
    assert requested == []
    assert "<title>owned" not in dom
    assert len(console) == 2  # both were refused
    (tmp_path / "without.html").write_text(POLICY.sub("", page), encoding="utf-8")
    dom, _ = browse(tmp_path / "without.html")
    assert requested == ["/pixel.png"]
    assert "<title>owned" in dom
