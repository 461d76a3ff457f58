"""What is asked of a base model, which has no chat template; and whose code vLLM may run."""

from __future__ import annotations

from pathlib import Path

import pytest

from datacreate import CreateConfig, create
from datacreate.checkpoints import Checkpoint, EngineSettings
from datacreate.engines.loading import Loading
from datacreate.engines.rendering import Renderer
from datacreate.engines.vllm import VllmEngine
from datacreate.errors import EngineError
from datacreate.runs.directory import RunDirectory
from datacreate.serving import vllm_engine
from tests.finetuning.conftest import save_tokenizer
from tests.making import settings
from tests.scripted import ScriptedEngine, answering

MESSAGES = [{"role": "system", "content": "the garden"}, {"role": "user", "content": "is there a bread"}]
TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}\n{% endfor %}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model as far as its configuration and tokenizer go."""
    from transformers import AutoConfig

    size = save_tokenizer(tmp_path / "base", ["Answer:", *"the garden is there a bread system user".split()])
    AutoConfig.for_model("opt", vocab_size=size, max_position_embeddings=64).save_pretrained(
        tmp_path / "base"
    )
    return tmp_path / "base"


def test_a_base_model_is_given_the_messages_as_text_to_go_on_with(base: Path) -> None:
    checkpoint = Checkpoint("base", base, "0" * 64, None)
    renderer = Renderer(checkpoint)
    engine = VllmEngine(Loading(checkpoint, renderer, EngineSettings()))
    rendered = renderer.render(MESSAGES)
    assert renderer.decode(rendered) == "the garden is there a bread Answer:"
    assert engine.count_tokens(MESSAGES) == len(rendered)
    assert not engine.has_chat_template
    assert engine.settings["prompt"] == "plain text, for want of a chat template"


def test_a_chat_template_is_used_where_there_is_one(base: Path) -> None:
    from transformers import AutoTokenizer

    (base / "chat_template.jinja").write_text(TEMPLATE)
    checkpoint = Checkpoint("base", base, "0" * 64, None)
    engine = VllmEngine(Loading(checkpoint, Renderer(checkpoint), EngineSettings()))
    assert engine.has_chat_template
    assert "prompt" not in engine.settings
    tokenizer = AutoTokenizer.from_pretrained(base)
    # The template knows no system role: that text leads the user's.
    assert tokenizer.decode(Renderer(checkpoint).render(MESSAGES)) == "user the garden is there a bread"


class Heard:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def update(self, tally: object, count: int) -> None: ...


def test_the_user_is_told_in_one_line(tmp_path: Path, model: str) -> None:
    engine, heard = ScriptedEngine(answering()), Heard()
    engine.has_chat_template = False
    create(
        CreateConfig.of(**settings(tmp_path / "run", model, strategy="naive")),
        progress=heard,
        engine_factory=lambda *_: engine,
    )
    assert [note for note in heard.notes if "chat template" in note] == [
        "scripted-model has no chat template, as a base model: it is given plain text to go on with; "
        "an instruct model follows better"
    ]


def test_vllm_may_run_a_publishers_code_only_where_the_checkpoint_says_so(base: Path, tmp_path: Path) -> None:
    own = Checkpoint("base", base, "0" * 64, None)
    assert Loading(own, Renderer(own), EngineSettings()).record["trust_remote_code"] is False
    config = CreateConfig(**settings(tmp_path / "run", str(base)))
    for allowed in (False, True):
        checkpoint = Checkpoint("base", base, "0" * 64, None, remote_code=allowed)
        engine = vllm_engine(checkpoint, config, RunDirectory(tmp_path / "run"))
        assert engine.settings["trust_remote_code"] is allowed


@pytest.mark.parametrize(("file", "asked"), [("config.json", "max_context"), ("tokenizer.json", "settings")])
def test_files_that_transformers_cannot_read_are_one_line(base: Path, file: str, asked: str) -> None:
    (base / file).write_text('{"model_type": "of tomorrow"}')
    checkpoint = Checkpoint("base", base, "0" * 64, None)
    engine = VllmEngine(Loading(checkpoint, Renderer(checkpoint), EngineSettings()))
    with pytest.raises(EngineError, match="; is it a model of an architecture that") as raised:
        getattr(engine, asked)
    assert "\n" not in str(raised.value)
