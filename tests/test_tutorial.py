"""The commands of docs/tutorial.md, in order, with a scripted server. The terminal program has tests of its own."""

from __future__ import annotations

import csv
import json
import random
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest

from datacreate.engines.request import Completion, Request
from tests.support.inprocess import typed
from tests.support.scripted import written
from tests.support.servers import MODEL, Server
from tests.test_docs import ROOT, commands

IN_A_TERMINAL = ("datacreate review runs/emails", "datacreate review runs/emails --sample 50")
WITH_REAL_MODELS = ("datacreate doctor", "datacreate models", "datacreate train", "datacreate evaluate")


def answer(request: Request) -> Completion:
    """Texts with as many words as the request asks for."""
    rng = random.Random(f"{request.id}:{request.messages}")
    asked = re.search(r"(\d+) to \d+ words", request.messages[-1]["content"])
    more = " and again" * (int(asked[1]) // 2) if asked else ""
    text = re.sub(r"word \d+", lambda word: word[0] + more, json.dumps(written(request, rng)))
    return Completion(request.id, text, "stop", 50, 50)


def test_the_commands_lead_to_a_reviewed_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "data" / "tutorial", "data/tutorial")
    lines = [line.partition(" #")[0].strip() for line in commands(ROOT / "docs" / "tutorial.md")]
    with Server(script=answer) as server:
        for verb in ("CREATE", "PREVIEW"):
            monkeypatch.setenv(f"DATACREATE_{verb}_URL", server.url)
            monkeypatch.setenv(f"DATACREATE_{verb}_MODEL", MODEL)
            monkeypatch.setenv(f"DATACREATE_{verb}_VERIFY", "off")  # the server does not know the topics
        for line in lines:
            if line in IN_A_TERMINAL or line.startswith(WITH_REAL_MODELS):
                continue
            command, _, output = line.partition(" >")
            ended = typed(*shlex.split(command)[1:])
            assert ended.code == 0, f"{line}: {ended.err}"
            if output:
                Path(output).write_text(ended.out, encoding="utf-8")
            if "--export review.csv" in line:
                rejected = reject_ten(Path("review.csv"))
    texts = [row["message"] for row in rows(Path("runs/emails/train.jsonl"))]
    assert len(texts) == 100
    assert not rejected & set(texts)
    topics = Counter(row["topic"] for row in rows(Path("runs/emails/train.jsonl")))
    assert sorted(topics.values()) == [33, 33, 34]
    parts = [path.read_text(encoding="utf-8") for path in Path("emails").iterdir()]
    assert sum(part.count("\n") - 1 for part in parts) == 100


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def reject_ten(path: Path) -> set[str]:
    """Reject the first ten rows of an exported review; returns their messages."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines[:10]:
        line["decision"], line["reason"] = "reject", "not an e-mail"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return {line["field:message"] for line in lines[:10]}
