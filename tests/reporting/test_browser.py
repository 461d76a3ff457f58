"""The page in a real browser: what its scripts draw, and that nothing else happens."""

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

from datacreate.reporting.page import render, write_page
from datacreate.reporting.wording import harmless
from tests.reporting.markup import Parsed
from tests.reporting.sample_report import HOSTILE, sample_report

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    FOUND is None, reason="no chromium or google-chrome here; scripts/test installs it"
)

QUIET = "--disable-background-networking --disable-component-update --no-first-run --no-default-browser-check"
DARK = "--blink-settings=preferredColorScheme=0"


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a headless browser of its own."""
    profile = page.parent / f"profile-{page.stem}"
    command = [
        str(FOUND),
        *"--headless --no-sandbox --disable-gpu --hide-scrollbars --enable-logging=stderr".split(),
        *QUIET.split(),
        f"--user-data-dir={profile}",
        "--virtual-time-budget=5000",
        *options,
        page.as_uri(),
    ]
    environment = {**os.environ, "HOME": str(page.parent)}
    told = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False, env=environment
    )
    assert told.returncode == 0, told.stderr
    return told


def console(told: subprocess.CompletedProcess[str]) -> list[str]:
    """What the page's console holds: errors, and what the policy refused."""
    return [line for line in told.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def told(folder: Path) -> subprocess.CompletedProcess[str]:
    """The page with hostile texts and names, after its scripts ran."""
    write_page(sample_report(hostile_names=True), folder / "whole.html")
    return browse(folder / "whole.html", "--dump-dom")


@pytest.fixture(scope="module")
def dom(told: subprocess.CompletedProcess[str]) -> str:
    return told.stdout


def test_nothing_is_said_on_the_console(told: subprocess.CompletedProcess[str]) -> None:
    assert console(told) == []


def test_curves_are_drawn(dom: str) -> None:
    charts = dom.split('class="curve ')[1:]
    assert len(charts) == 2
    for chart in charts:
        assert chart.count('class="trace scatter') == 4
        assert chart.count('class="point"') == 4 * 4
        assert chart.count('class="errorbar"') == 4 * 4


def test_names_in_charts_are_shown_letter_by_letter(dom: str) -> None:
    legend = re.findall(r'<text class="legendtext"[^>]*>(.*?)</text>', dom)
    assert set(legend) == {"human", "&lt;b&gt;random&lt;/b&gt;", "similar", "tree"}


def test_hostile_text_is_there_and_did_nothing(dom: str) -> None:
    parsed = Parsed(dom)
    for text in HOSTILE:
        assert f"What is meant by {harmless(text)}?" in parsed.written
    assert parsed.named("img", "iframe", "form") == []
    assert len(parsed.named("body")) == 1
    assert "class" not in parsed.named("body")[0]
    assert "<title>What the created training sets are worth: datacreate report</title>" in dom
    assert not [name for _, given in parsed.elements for name in given if name.startswith("on")]


def test_curves_follow_the_colours_of_the_screen(folder: Path, dom: str) -> None:
    dark = browse(folder / "whole.html", "--dump-dom", DARK).stdout
    light_blue, dark_blue = "rgb(0, 114, 178)", "rgb(92, 179, 232)"
    assert light_blue in dom
    assert dark_blue not in dom
    assert dark_blue in dark
    assert light_blue not in dark


@pytest.fixture
def beacon() -> Iterator[tuple[str, list[str]]]:
    """A server, and the paths that were asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_policy_holds_even_if_markup_gets_through(folder: Path, beacon: tuple[str, list[str]]) -> None:
    """Markup put in by hand fetches and runs without the policy, and does nothing with it."""
    place, asked = beacon
    smuggled = (
        f'<main id="main"><img src="http://{place}/pixel.png"><script>document.title = "owned"</script>'
    )
    page = render(sample_report(curves=False)).replace('<main id="main">', smuggled)
    (folder / "held.html").write_text(page, encoding="utf-8")
    held = browse(folder / "held.html", "--dump-dom")
    assert asked == []
    assert "<title>owned" not in held.stdout
    assert len(console(held)) == 2  # what was refused

    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (folder / "open.html").write_text(open_page, encoding="utf-8")
    opened = browse(folder / "open.html", "--dump-dom")
    assert asked == ["/pixel.png"]
    assert "<title>owned" in opened.stdout


@pytest.mark.parametrize("width", [500, 1400])
def test_only_tables_scroll_sideways(folder: Path, width: int) -> None:
    probe = """<script>
    const wide = [...document.querySelectorAll("main *")].filter(
      (e) => !e.closest(".scroll *, .unseen") && e.getBoundingClientRect().right > innerWidth + 1);
    document.documentElement.lang = `${document.documentElement.scrollWidth <= innerWidth} ${wide.length}`;
    </script></body>"""
    page = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render(sample_report(curves=False))
    )
    page = page.replace("<details", "<details open").replace("</body>", probe)
    (folder / f"width-{width}.html").write_text(page, encoding="utf-8")
    shown = browse(folder / f"width-{width}.html", "--dump-dom", f"--window-size={width},1000").stdout
    assert '<html lang="true 0">' in shown
