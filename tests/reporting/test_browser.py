"""The page in a real browser: charts are there, hostile text does nothing, and nothing is loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from datacreate.creation.run_metrics import measure_run
from datacreate.engines.request import Completion, Request
from datacreate.messages import safe_text
from datacreate.reporting.render import as_page
from datacreate.reporting.run_page import make_run_page
from datacreate.runs.directory import RunDirectory
from tests.reporting.sample import HOSTILE, sample_report
from tests.support.making import make
from tests.support.scripted import answering

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


def test_charts_are_there_and_hostile_text_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(as_page(sample_report(f"<b>tree</b>{HOSTILE[0]}")), encoding="utf-8")
    dom, console = browse(tmp_path / "page.html")
    assert console == []
    assert dom.count('<div class="bar">') == 8
    assert f"{escaped(f'<b>tree</b>{HOSTILE[0]}')}, 100 sampled</th>" in dom
    assert "<title>datacreate report</title>" in dom
    assert not re.search(r"<(script|img|iframe|form)\b|<body class", dom)


def escaped(text: str) -> str:
    return safe_text(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def test_a_run_with_hostile_text(tmp_path: Path, model: str) -> None:
    """Every place of the page that shows text of the model: samples, plots, pairs, labels, rejects."""
    labels = [HOSTILE[0], HOSTILE[2]]
    example = {"<b>text</b>": f"An example {HOSTILE[1]}", "label": labels[0]}

    def script(request: Request) -> Completion:
        completion = answering()(request)
        endings = (json.dumps(f" {HOSTILE[at % 7]}")[1:] for at in count(request.id))
        text = re.sub(r'(word[ 0-9]+)"', lambda found: found[1] + next(endings), completion.text)
        return replace(completion, text=text)

    make(run := tmp_path / "<b>run<b>", model, script, example=example, labels={"label": ",".join(labels)}, count=40)
    directory, page = RunDirectory(run), tmp_path / "page.html"
    text = make_run_page(directory, directory.summary(), measure_run(directory))
    page.write_text(text, encoding="utf-8", errors="backslashreplace")
    dom, console = browse(page)
    assert console == []
    assert not re.search(r"<(script|img|iframe|form)\b|<b>|<svg onload|<body class", dom)
    assert "<title>datacreate: " in dom
    assert dom.count("<circle") == 40 + 1 + 40  # tree with the formatting example, map
    for text in HOSTILE[:7]:
        assert escaped(text) in dom


def test_the_policy_refuses_what_injected_markup_would_load(tmp_path: Path) -> None:
    injected = '<img src="http://127.0.0.1:9/pixel.png"><script src="http://127.0.0.1:9/script.js"></script>'
    page = as_page(sample_report()).replace('<main id="main">', f'<main id="main">{injected}')
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    _, console = browse(tmp_path / "page.html")
    assert len(console) == 2
    assert all("Content Security Policy" in line for line in console)
