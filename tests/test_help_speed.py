"""`--help` is fast, because it imports few libraries."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SLOW = {
    "accelerate", "datasets", "gguf", "huggingface_hub", "jsonschema", "numpy", "pandas", "peft", "psutil",
    "rensa", "safetensors", "sentence_transformers", "torch", "transformers", "vllm", "yaml",
}  # fmt: skip

CALL = """
import json, sys
from datacreate.cli.main import main
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize(
    ("command", "libraries", "word"), [([], SLOW | {"pydantic"}, "create"), (["create"], SLOW, "--strategy")]
)
def test_help_imports_no_slow_library(command: list[str], libraries: set[str], word: str) -> None:
    call = [sys.executable, "-c", CALL, *command, "--help"]
    ended = subprocess.run(call, capture_output=True, text=True, check=True)
    help_text, _, modules = ended.stdout.rstrip().rpartition("\n")
    assert word in help_text
    assert libraries.isdisjoint(json.loads(modules))
