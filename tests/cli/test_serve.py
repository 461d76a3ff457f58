"""`datacreate serve`, as far as it goes without a model: what is wrong is told before anything loads."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from datacreate.engines.openai import Addresses

from tests.process import run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "192.0.2.7"], "--host 192.0.2.7 --port 0: "),
        (["--", "--port", "8000"], "--port: that is datacreate's to say"),
        (["--", "--served_model_name=x"], "--served_model_name=x: that is datacreate's to say"),
        (["--", "--ssl-keyfile", "key.pem"], "servers are asked without TLS"),
        (["--block-size", "-1"], "--block-size -1: "),
    ],
)
def test_what_cannot_be_is_one_line(model: str, words: list[str], says: str) -> None:
    ended = run("serve", "--model", model, *words)
    assert ended.code == 2
    assert says in ended.failure
    assert "loading" not in ended.err


def test_a_port_that_somebody_has_is_told_of(model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run("serve", "--model", model, "--port", taken.getsockname()[1])
    assert (ended.code, "Address already in use" in ended.failure) == (2, True)


def test_a_published_folder_is_there_before_the_model_and_unreadable_files_in_it_are_nobody(
    tmp_path: Path, model: str
) -> None:
    folder = tmp_path / "run" / "servers"
    assert Addresses.of([str(folder)]).now() == ()
    ended = run("serve", "--model", model, "--publish", folder)
    assert ended.code == 1  # no model that loads
    assert folder.is_dir()
    (folder / "half.json").write_text('{"url": "htt')
    (folder / "other.json").write_text('{"url": 3}')
    (folder / "one.json").write_text(json.dumps({"url": "http://node7:8000/v1/", "max_num_seqs": 256}))
    [found] = Addresses.of([str(folder)]).now()
    assert (found.url, found.max_num_seqs) == ("http://node7:8000", 256)
