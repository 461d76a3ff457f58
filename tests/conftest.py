"""Shared fixtures: a tiny checkpoint, and a guard against connections to other machines."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from datacreate import files
from tests.support.guard import guard
from tests.support.tiny_model import write_gguf

if TYPE_CHECKING:
    from datacreate.engines.server_sources import LocalServers

# The same examples in every run, without a deadline.
settings.register_profile("datacreate", derandomize=True, deadline=None, database=None, max_examples=40)
settings.load_profile("datacreate")

_CALLED: list[str] = []
guard(lambda event, host: _CALLED.append(f"{event} {host}"))  # audit hooks cannot be removed


FIRST = ("tests/slurm/", "tests/test_soak.py", "tests/finetuning/", "tests/offline/", "tests/sweep/")
"""Slow tests, which start first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((at for at, folder in enumerate(FIRST) if item.nodeid.startswith(folder)), len(FIRST))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of a file share a worker, for their fixtures; all SLURM tests share one, for their cluster."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return FIRST[0] if nodeid.startswith(FIRST[0]) else nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def data_dir_without_benchmarks(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Path]:
    """The data directory without imported benchmarks, which every run would use for decontamination.

    With `-m "not model"` it has no models either: fixtures of a module are made before `data_dir_without_models`.
    """
    own, without = files.data_dir(), tmp_path_factory.mktemp("home")
    has_models = own.is_dir() and "not model" not in pytestconfig.option.markexpr
    for part in own.iterdir() if has_models else ():
        if part.name != "benchmarks":
            (without / part.name).symlink_to(part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACREATE_HOME", str(without))
        yield without


@pytest.fixture(scope="session")
def empty_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty-home")


@pytest.fixture(autouse=True)
def data_dir_without_models(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    data_dir_without_benchmarks: Path,
    empty_data_dir: Path,
) -> None:
    """Without the marker `model` a test finds no downloaded model, on any machine."""
    is_unchanged = os.environ.get("DATACREATE_HOME") == str(data_dir_without_benchmarks)
    if is_unchanged and request.node.get_closest_marker("model") is None:
        monkeypatch.setenv("DATACREATE_HOME", str(empty_data_dir))


@pytest.fixture(autouse=True)
def calls_out() -> Iterator[list[str]]:
    """The connections to other machines that the test attempted; it fails if there are any."""
    _CALLED.clear()
    yield _CALLED
    assert _CALLED == [], "connections to other machines are blocked"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny local checkpoint, which the scripted client does not read."""
    folder = tmp_path_factory.mktemp("checkpoints") / "scripted-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    return str(folder)


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file that loads quickly and writes random words (tests/support/tiny_model.py)."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


REAL_MODEL = "qwen2.5-coder-0.5b-instruct"


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServers]:
    """A llama.cpp server with a real model (0.5B) that all tests share."""
    from datacreate.checkpoints.checkpoint import resolve
    from datacreate.checkpoints.presets import ServerSettings
    from datacreate.engines.engine import Workload
    from datacreate.engines.llamacpp import LLAMACPP
    from datacreate.engines.server_sources import LocalServers

    checkpoint = resolve(REAL_MODEL, "instruct")
    command = LLAMACPP.command(checkpoint, ServerSettings(max_num_seqs=16), Workload())
    servers = LocalServers(lambda: [command], tmp_path_factory.mktemp("server") / "server.log", print)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def real_url(real_server: LocalServers, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of `real_server`; its key is in $DATACREATE_API_KEY."""
    [address] = real_server.addresses()
    monkeypatch.setenv("DATACREATE_API_KEY", address.key)
    return address.url
