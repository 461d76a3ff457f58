"""The log: what goes in comes out; what was torn is cut off; what was changed is found."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.errors import EngineError, LogDamaged
from datacreate.formats.reject import Reject, RejectReason
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import Commit, SessionStart, first_checksum, read_log
from datacreate.verification import Scored
from tests.support.making import append, make, train
from tests.support.scripted import ScriptedClient, answering

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
records = st.builds(
    Commit,
    request_number=st.integers(0, 10**9),
    parent=st.text("0123456789abcdef", min_size=16, max_size=16),
    parent_depth=st.integers(0, 1000),
    generator=st.integers(0, 3),
    accepted=st.lists(st.dictionaries(texts, values, max_size=4), max_size=3).map(tuple),
    chosen_children=st.lists(st.integers(0, 5), max_size=5).map(tuple),
    rejects=st.lists(st.builds(Reject, st.sampled_from(RejectReason), texts), max_size=3).map(tuple),
    prompt_tokens=st.integers(0, 10**6),
    generated_tokens=st.integers(0, 10**6),
    thoughts=texts,
    time=st.integers(0, 10**13).map(lambda ms: ms / 1000),
) | st.builds(SessionStart, st.integers(0, 10**13).map(lambda ms: ms / 1000), st.dictionaries(texts, texts, max_size=3))


@given(written=st.lists(st.tuples(records, st.lists(st.integers(0, 10**6), max_size=3)), max_size=4))
def test_what_is_appended_is_read(tmp_path_factory: pytest.TempPathFactory, written: list[Any]) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    checksum = first_checksum("run")
    for record, parents in written:  # opened anew each time, as sessions do
        append(path, checksum, record, parents)
        *_, last = read_log(path, "run")
        checksum = last.checksum
    lines = list(read_log(path, "run")) if written else []
    assert [(line.record, list(line.parents)) for line in lines] == written
    assert [line.number for line in lines] == list(range(1, len(written) + 1))
    if written:
        for line in path.read_bytes().split(b"\n")[:-1]:
            json.loads(line)


@pytest.mark.parametrize("probabilities", [(), (1.0,), (0.5, "x"), (0.5, None), (0.5, -0.5), (0.5, float("nan"))])
def test_damaged_probabilities_are_named_by_their_line(tmp_path: Path, probabilities: Any) -> None:
    commit = Commit(1, "0" * 16, 0, 3.0, scored=(Scored(1, 1, accepted=True, probabilities=probabilities),))
    append(tmp_path / "log.jsonl", first_checksum("run"), commit)
    with pytest.raises(LogDamaged, match=r"log.jsonl, line 1: unknown to this version"):
        list(read_log(tmp_path / "log.jsonl", "run"))


def test_probabilities_of_other_labels_are_named_by_their_line(tmp_path: Path) -> None:
    commit = Commit(1, "0" * 16, 0, 3.0, scored=(Scored(1, 1, accepted=True, probabilities=(0.1, 0.7, 0.2)),))
    append(tmp_path / "log.jsonl", first_checksum("run"), commit)
    for num_labels in (0, 3):
        assert len(list(read_log(tmp_path / "log.jsonl", "run", num_labels))) == 1
    with pytest.raises(LogDamaged, match=r"log.jsonl, line 1: unknown to this version"):
        list(read_log(tmp_path / "log.jsonl", "run", 2))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    make(run, model)
    return run


def copied(whole: Path, to: Path, log: bytes) -> Path:
    to.mkdir()
    (to / "config.json").write_bytes((whole / "config.json").read_bytes())
    (to / "log.jsonl").write_bytes(log)
    return to


def test_a_log_cut_anywhere_in_its_last_line_resumes_to_the_same_bytes(tmp_path: Path, model: str) -> None:
    small: dict[str, Any] = {"count": 4, "num_examples": 1, "concurrency": 2, "strategy": "random"}
    make(tmp_path / "whole", model, **small)
    log = (tmp_path / "whole" / "log.jsonl").read_bytes()
    last = log.rindex(b"\n", 0, -1) + 1
    for cut in (last, last + 1, (last + len(log)) // 2, len(log) - 2, len(log) - 1):
        run = copied(tmp_path / "whole", tmp_path / str(cut), log[:cut])
        make(run, model, **small)
        assert train(run) == train(tmp_path / "whole")


DAMAGE: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "a letter": (lambda lines: [lines[0], lines[1].replace(b"word", b"ward", 1), *lines[2:]], 2),
    "missing line": (lambda lines: lines[:2] + lines[3:], 3),
    "missing first line": (lambda lines: lines[1:], 1),
    "swapped lines": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3),
    "line twice": (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4),
    "empty line": (lambda lines: [*lines[:3], b"\n", *lines[3:]], 4),
    "zeros": (lambda lines: [*lines[:2], bytes(100) + b"\n", *lines[2:]], 3),
}
"""Change of the lines, and the number of the first line that is then wrong."""


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_before_the_last_line_is_named_by_its_line_and_nothing_is_changed(
    whole: Path, tmp_path: Path, model: str, how: str
) -> None:
    change, line = DAMAGE[how]
    log = b"".join(change((whole / "log.jsonl").read_bytes().splitlines(keepends=True)))
    run = copied(whole, tmp_path / "run", log)
    with pytest.raises(LogDamaged, match=f"log.jsonl, line {line}: ") as caught:
        make(run, model)
    assert caught.value.exit_code == 1
    assert (run / "log.jsonl").read_bytes() == log


@pytest.mark.parametrize(("request_number", "parents", "what"), [(99, [], "request 99"), (0, [9999], "parent 9999")])
def test_a_line_that_cannot_follow_is_named(
    tmp_path: Path, model: str, request_number: int, parents: list[int], what: str
) -> None:
    with pytest.raises(EngineError):
        make(tmp_path, model, ScriptedClient(answering(), dies_after=1))
    run = RunDirectory(tmp_path)
    *_, last = run.log()
    tokens = {"prompt_tokens": 1, "generated_tokens": 1}
    nothing: dict[str, Any] = {"accepted": (), "chosen_children": (), "rejects": ()}
    commit = Commit(request_number=request_number, parent="0" * 16, parent_depth=0, time=3.0, **tokens, **nothing)
    append(run.log_path, last.checksum, commit, parents)
    with pytest.raises(LogDamaged, match=rf"log.jsonl, line {last.number + 1}: {what} cannot follow"):
        make(tmp_path, model)


@pytest.mark.parametrize("make_path", [os.mkdir, os.mkfifo])
def test_only_a_log_that_is_no_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_path: Callable[[Path], None]
) -> None:
    path = tmp_path / "log.jsonl"
    make_path(path)
    with pytest.raises(LogDamaged, match=r"log\.jsonl: not a regular file; restore it"):
        list(read_log(path, "run"))

    def fails(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("datacreate.runs.log.open_regular", fails)
    with pytest.raises(PermissionError):
        list(read_log(path, "run"))


def test_the_log_of_another_run_is_not_taken_for_its_own(whole: Path, tmp_path: Path, model: str) -> None:
    make(tmp_path / "other", model)  # the very same settings
    run = copied(whole, tmp_path / "run", (tmp_path / "other" / "log.jsonl").read_bytes())
    with pytest.raises(LogDamaged, match="line 1: "):
        make(run, model)
