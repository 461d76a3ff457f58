"""Does this checkpoint write text, as far as it says itself what it is?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from datacreate.checkpoints.folder import read_config
from datacreate.checkpoints.gguf_file import read_header
from datacreate.errors import CheckpointError

_ENCODERS = ("ForMaskedLM", "ForSequenceClassification", "ForMultipleChoice", "ForTokenClassification")
_ENCODER_FAMILIES = frozenset(
    "albert bert camembert deberta deberta-v2 distilbert electra modernbert mpnet roberta xlm-roberta".split()
)


def check_writes(folder: Path) -> None:
    """Refuse a checkpoint that cannot write text: an encoder, or an encoder with a decoder behind it.

    A look at what config.json says of itself; one that says nothing passes. Raises CheckpointError.
    """
    config = read_config(folder)
    kinds = [str(kind) for kind in config.get("architectures") or ()]
    of_encoder = config.get("model_type") in _ENCODER_FAMILIES and not any("LMHead" in k for k in kinds)
    if any(kind.endswith(_ENCODERS) for kind in kinds) or (
        of_encoder and not any(kind.endswith("ForCausalLM") for kind in kinds)
    ):
        what = "an encoder"
    elif config.get("is_encoder_decoder") is True:
        what = "an encoder with a decoder, which vLLM does not serve"
    else:
        return
    shown = ", ".join(kinds) or config.get("model_type")
    raise CheckpointError(
        f"{folder}: {what} ({shown}), and an instruct model is needed here: give one that writes text"
    )


def check_gguf_kind(path: Path, kind: Literal["instruct", "encoder"]) -> None:
    """Refuse a GGUF file that is wanted as an encoder, or that is an adapter, a projector or an encoder.

    Raises CheckpointError, or Damaged if the file is not whole.
    """
    if kind == "encoder":
        raise CheckpointError(f"{path}: a GGUF file, and an encoder is read from a folder of safetensors")
    header = read_header(path)
    if header.kind == "adapter":
        made_for = f" for {header.base_model}" if header.base_model else ""
        raise CheckpointError(
            f"{path}: a LoRA adapter{made_for}, not a whole model; use --model with its base and "
            f"--adapter {path}"
        )
    if header.kind != "model" or not header.parameters:
        what = f"no language model but {header.kind!r}" if header.kind != "model" else "no weights in it"
    elif re.search(r"bert|^t5|embed", header.architecture):
        what = f"an encoder ({header.architecture})"
    else:
        return
    raise CheckpointError(f"{path}: {what}, and an instruct model is needed here: give one that writes text")
