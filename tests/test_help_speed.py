"""`datacreate --help` answers at once, because it imports next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys

NOT_FOR_HELP = {
    "accelerate", "datasets", "gguf", "huggingface_hub", "jsonschema", "numpy", "pandas", "peft", "psutil",
    "pydantic", "safetensors", "sentence_transformers", "torch", "transformers", "vllm", "yaml",
}  # fmt: skip

CALL = """
import json, sys
from datacreate.cli.main import main
sys.argv = ["datacreate", "--help"]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_help_imports_no_library_of_weight() -> None:
    told = subprocess.run([sys.executable, "-c", CALL], capture_output=True, text=True, check=True)
    helped, _, modules = told.stdout.rstrip().rpartition("\n")
    assert "create" in helped
    assert NOT_FOR_HELP.isdisjoint(json.loads(modules))
