"""The page in a real browser: plots are drawn, hostile text does nothing, and nothing is loaded."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from datacreate.messages import visible
from datacreate.reporting.render import as_page
from tests.reporting.sample import HOSTILE, sample_report

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(FOUND is None, reason="needs chromium or google-chrome")

QUIET = "--disable-background-networking --disable-component-update --no-first-run --no-default-browser-check"


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
    assert dom.count('class="plotly-graph-div') == 1
    assert dom.count('class="trace bars"') == 4
    legend = set(re.findall(r'<text class="legendtext"[^>]*>(.*?)</text>', dom))
    assert any("&lt;b&gt;tree&lt;/b&gt;" in text for text in legend)
    assert "<title>datacreate report</title>" in dom
    assert not re.search(r"<(img|iframe|form)\b|<body class", dom)
    for text in HOSTILE[:7]:
        assert visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in dom


def test_the_policy_refuses_what_injected_markup_would_load(tmp_path: Path) -> None:
    injected = '<img src="http://127.0.0.1:9/pixel.png"><script src="http://127.0.0.1:9/script.js"></script>'
    page = as_page(sample_report()).replace('<main id="main">', f'<main id="main">{injected}')
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    _, console = browse(tmp_path / "page.html")
    assert len(console) == 2
    assert all("Content Security Policy" in line for line in console)
