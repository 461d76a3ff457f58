"""Nothing listens on an address that other machines can reach, unless a user asks for it and sets a key."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from datacreate.checkpoints.checkpoint import resolve
from datacreate.engines import EngineOptions
from datacreate.engines.factory import LocalModel, make_local_servers
from datacreate.engines.llamacpp import LLAMACPP
from datacreate.engines.vllm import VLLM
from datacreate.finetuning.train import train
from tests.finetuning.conftest import save_encoder
from tests.finetuning.sets import claims, write_rows
from tests.finetuning.training import Recorder, config
from tests.support.inprocess import typed
from tests.support.tiny_model import write_gguf, write_safetensors


def listening() -> Iterator[str]:
    """The addresses on which this process and its descendants listen."""
    this = psutil.Process(os.getpid())
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            found = process.net_connections("inet")
            yield from (each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN)


def are_loopback(addresses: set[str]) -> bool:
    return all(ip_address(address).is_loopback for address in addresses)


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("llamacpp", marks=pytest.mark.skipif(not LLAMACPP.build(), reason="llama.cpp is not installed")),
        pytest.param(
            "vllm", marks=[pytest.mark.model, pytest.mark.skipif(not VLLM.build(), reason="vLLM is not installed")]
        ),
    ],
)
def test_servers_of_a_run_listen_on_loopback_and_need_a_key(tmp_path: Path, engine: str) -> None:
    path = write_gguf(tmp_path / "m.gguf") if engine == "llamacpp" else write_safetensors(tmp_path / "m")
    model = LocalModel(resolve(str(path), "instruct"), EngineOptions(engine=engine, max_num_seqs=2))
    servers = make_local_servers(model, count=10, log=tmp_path / "log", notify=print)
    try:
        servers.start()
        addresses = set(listening())
        assert addresses
        assert are_loopback(addresses), addresses
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{servers.addresses()[0].url}/v1/models")
    finally:
        servers.stop()


@pytest.mark.parametrize("nproc", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_does_not_listen(tmp_path: Path, nproc: int) -> None:
    encoder = save_encoder(tmp_path / "encoder")
    rows = write_rows(tmp_path / "rows.jsonl", claims(40))
    seen: set[str] = set()
    recorder = Recorder(stop_at=2, action=lambda: seen.update(listening()))
    train(config(rows, tmp_path / "out", str(encoder), seeds=(1, 2), epochs=1, nproc=nproc), recorder)
    assert len(recorder.steps) >= 2
    assert are_loopback(seen), seen


def test_serving_other_machines_needs_a_key(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATACREATE_API_KEY", raising=False)
    ended = typed("serve", "--model", str(tiny_gguf), "--host", "0.0.0.0")
    assert (ended.code, "--host 0.0.0.0: give --register-dir, or set $DATACREATE" in ended.failure) == (2, True)
