"""A Qwen2 of two layers with random weights and a real BPE vocabulary, for llama.cpp and for vLLM.

With a grammar it writes short strings of random words: one dimension of the residual stream is constant, and
gives each token its own probability; the other dimensions vary it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

WIDTH, LAYERS, HEADS, INNER, CONTEXT = 64, 2, 2, 128, 4096
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

THINKING_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['reasoning_content'] %}<think>\n"
    "{{ m['reasoning_content'] }}\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n"
    "{% if enable_thinking is false %}\n</think>\n\n{% endif %}{% endif %}"
)
"""That of a model that thinks unless it is told not to."""

_TEXT = """the quick brown fox and a lazy dog walk home through rain while seven old friends talk about bread
and honey near the river bank question context options label answer examples format array items where would
you put the umbrella when you come from town to your house shelf wallet oven stand aquarium"""


@cache
def tokenizer() -> Any:
    """A byte-level BPE, trained on a few words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(_TEXT.splitlines(), trainer)
    bpe.add_special_tokens(SPECIAL)
    return bpe


def tokens() -> list[str]:
    """The vocabulary in the order of its numbers."""
    vocabulary = tokenizer().get_vocab()
    return sorted(vocabulary, key=lambda token: int(vocabulary[token]))


def _logit(token: str) -> float:
    word = token.removeprefix("Ġ")
    usual = 3.0 if word.isascii() and word.isalpha() and token not in SPECIAL else -4.0
    # Choices are among the most probable tokens, so that they can be scored.
    return {'"': 7.0, "A": 6.0, "B": 6.0, "C": 6.0}.get(token, usual)


def weights(seed: int = 0) -> dict[str, Any]:
    """All tensors by their names in transformers."""
    import numpy as np

    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float) -> Any:
        return (random.standard_normal((rows, columns)) * scale).astype(np.float32)

    names = tokens()
    embedding, head = matrix(len(names), WIDTH, 0.5), matrix(len(names), WIDTH, 0.3)
    embedding[:, 0] = 8.0
    head[:, 0] = [_logit(token) / 7 for token in names]
    found = {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    ones = np.ones(WIDTH, np.float32)
    found["model.norm.weight"] = ones
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        found |= {f"{at}input_layernorm.weight": ones, f"{at}post_attention_layernorm.weight": ones}
        for part in "qkv":
            found[f"{at}self_attn.{part}_proj.weight"] = matrix(WIDTH, WIDTH, 0.1)
            found[f"{at}self_attn.{part}_proj.bias"] = np.zeros(WIDTH, np.float32)
        outputs = {"self_attn.o_proj": (WIDTH, WIDTH), "mlp.down_proj": (WIDTH, INNER)}
        for name, shape in outputs.items():
            found[f"{at}{name}.weight"] = matrix(*shape, 0.1)
            found[f"{at}{name}.weight"][0] = 0.0  # the constant dimension is not changed
        for name in ("gate", "up"):
            found[f"{at}mlp.{name}_proj.weight"] = matrix(INNER, WIDTH, 0.1)
    return found


_IN_GGUF = {
    "model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm",
    "model.layers.": "blk.", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def write_gguf(
    path: Path, without: str = "", seed: int = 0, architecture: str = "qwen2", template: str = TEMPLATE, **options: Any
) -> Path:
    """The model as a GGUF file; `without` omits a tensor, so that no server can load it.

    With `split_max_tensors=N` several parts; returns the first.
    """
    import gguf

    writer = gguf.GGUFWriter(path, architecture, **options)
    writer.add_type("model")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    names = tokens()
    writer.add_token_list(names)
    writer.add_token_types([3 if name in SPECIAL else 1 for name in names])
    merges = json.loads(tokenizer().to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(names.index("<|endoftext|>"))
    writer.add_eos_token_id(names.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)
    for name, values in weights(seed).items():
        renamed = name
        for theirs, ours in _IN_GGUF.items():
            renamed = renamed.replace(theirs, ours)
        if renamed != without:
            writer.add_tensor(renamed, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if path.is_file() else min(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))


def write_safetensors(folder: Path) -> Path:
    """The model as a folder that transformers and vLLM load."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    names = tokens()
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "dtype": "float32",
        "vocab_size": len(names), "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "bos_token_id": names.index("<|endoftext|>"), "eos_token_id": names.index("<|im_end|>"),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[2], "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    save_file(weights(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
