"""What vLLM's own server is told of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from datacreate.checkpoints import Checkpoint, EngineSettings
from datacreate.engines.loading import Loading
from datacreate.engines.rendering import Renderer
from datacreate.engines.serve import arguments
from tests.finetuning.conftest import save_tokenizer


def test_a_server_is_told_what_the_engine_is_told_and_nothing_of_the_record(tmp_path: Path) -> None:
    from transformers import AutoConfig

    base = tmp_path / "base"
    size = save_tokenizer(base, ["is", "there", "bread"])
    AutoConfig.for_model("opt", vocab_size=size, max_position_embeddings=64).save_pretrained(base)
    checkpoint = Checkpoint("base", base, "0" * 64, None)
    loading = Loading(
        checkpoint,
        Renderer(checkpoint, {"enable_thinking": False}),
        EngineSettings(dtype="bfloat16", enforce_eager=True, kv_cache_gib=2),
    )
    assert {"device", "chat_template", "prompt"} <= loading.record.keys() - loading.arguments.keys()
    weights, *words = arguments(loading, "mine")
    assert weights == str(base)
    flags = {word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    ours = {"served_model_name", "structured_outputs_config", "enable_prefix_caching"}
    on_a_processor = {"distributed_executor_backend"}
    assert flags - on_a_processor == ours | (loading.arguments.keys() - {"trust_remote_code"})  # off: no flag
    assert words[words.index("--max-model-len") + 1] == "64"
