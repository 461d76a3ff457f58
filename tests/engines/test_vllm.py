"""vLLM's own server: what it is told, and, where vLLM is installed, that it answers as a run needs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datacreate.checkpoints import Checkpoint, EngineSettings, resolve
from datacreate.engines.base import Completion, Request, Sampling, scoring
from datacreate.engines.factory import make_engine
from datacreate.engines.settings import EngineOptions
from datacreate.engines.vllm import PLAIN_TEMPLATE, vllm_command
from datacreate.errors import EngineError
from datacreate.hardware import vllm_build
from tests.tiny_model import write_safetensors

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(write_safetensors(tmp_path_factory.mktemp("models") / "tiny")), "instruct")


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datacreate.engines.vllm.vllm_build", lambda: "cpu")


@pytest.mark.model
@pytest.mark.skipif(vllm_build() is None, reason="vLLM is not installed here")
def test_vllm_writes_by_a_schema_and_scores_choices(tiny: Checkpoint, tmp_path: Path) -> None:
    options = EngineOptions(engine="vllm", max_num_seqs=4, max_model_len=1024, enforce_eager=True, replicas=1)
    engine = make_engine(tiny, options, count=5, log=tmp_path / "engine.log")
    try:
        engine.start()  # the self-test is passed: the grammar is enforced
        assert (engine.capacity, engine.max_context) == (4, 1024)
        assert 10 < engine.count_tokens(MESSAGES) < 100
        assert engine.tells_apart(["yes", "no"])
        schema = {
            "type": "array",
            "prefixItems": [{"const": "a b"}, {"enum": [1, 2]}],
            "minItems": 2,
            "maxItems": 2,
        }
        engine.submit(Request(1, MESSAGES, json.dumps(schema), Sampling(max_tokens=50)))
        engine.submit(scoring(-2, MESSAGES, ("A", "B", "C")))
        answers: dict[int, Completion] = {}
        while len(answers) < 2:
            answers |= {answer.request_id: answer for answer in engine.poll(60.0)}
        assert answers[1].text in ('["a b",1]', '["a b",2]')  # without a space that need not be
        assert sum(answers[-2].scores) == pytest.approx(1)
        assert len(set(answers[-2].scores)) == 3
    finally:
        engine.close()


@pytest.mark.usefixtures("on_a_cpu")
def test_the_server_is_told_what_the_record_says(tiny: Checkpoint) -> None:
    command = vllm_command(
        tiny, EngineSettings(dtype="float32", max_model_len=100_000, kv_cache_gib=2), count=5
    )
    words = command.arguments
    assert words[words.index("--max-model-len") + 1] == "4096"  # all that the model has
    assert words[words.index("--served-model-name") + 1] == "tiny"
    assert {"--enforce-eager", "--enable-prefix-caching"} <= set(
        words
    )  # 5 examples are not worth compiling for
    assert "--trust-remote-code" not in words
    assert "--chat-template" not in words
    assert command.environment["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert (command.record["dtype"], command.record["kv_cache_gib"]) == ("float32", 2)


@pytest.mark.usefixtures("on_a_cpu")
def test_a_publishers_code_may_run_only_where_the_checkpoint_says_so(tiny: Checkpoint) -> None:
    trusted = Checkpoint("tiny", tiny.path, tiny.sha256, None, trust_remote_code=True)
    assert "--trust-remote-code" in vllm_command(trusted, EngineSettings()).arguments


@pytest.mark.usefixtures("on_a_cpu")
def test_a_base_model_is_given_plain_text_to_continue(tmp_path: Path) -> None:
    folder = write_safetensors(tmp_path / "base")
    (folder / "tokenizer_config.json").write_text("{}")
    words = vllm_command(resolve(str(folder), "instruct"), EngineSettings()).arguments
    assert words[words.index("--chat-template") + 1] == PLAIN_TEMPLATE


def test_without_vllm_the_other_engine_is_named(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datacreate.engines.vllm.vllm_build", lambda: None)
    with pytest.raises(EngineError, match=r"vLLM is not installed; .*--engine llamacpp"):
        vllm_command(tiny, EngineSettings())
