"""What may be imported at module level, so that `--help` is fast; lint-imports checks the layers."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import datacreate

PACKAGE = Path(datacreate.__file__).parent

HEAVY = {
    *("vllm", "torch", "transformers", "peft", "sentence_transformers", "datasets", "accelerate"),
    *("scipy", "sklearn"),
}
"""Libraries that take a second or more to import: only inside the function that needs them."""


def imported_at_once(body: list[ast.stmt]) -> Iterator[str]:
    """The top-level packages that running these statements imports."""
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (name.name.partition(".")[0] for name in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield (statement.module or "").partition(".")[0]
        elif isinstance(statement, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(statement.test):
                yield from imported_at_once(statement.body)
            yield from imported_at_once(statement.orelse)
        elif isinstance(statement, ast.Try):
            for block in (statement.body, statement.orelse, statement.finalbody):
                yield from imported_at_once(block)
        elif isinstance(statement, (ast.With, ast.ClassDef)):
            yield from imported_at_once(statement.body)


def test_heavy_libraries_are_imported_late() -> None:
    early = {
        str(module.relative_to(PACKAGE)): HEAVY.intersection(imported_at_once(ast.parse(module.read_bytes()).body))
        for module in PACKAGE.rglob("*.py")
    }
    assert early
    assert {module: found for module, found in early.items() if found} == {}


SLOW = {
    "accelerate", "datasets", "gguf", "huggingface_hub", "jsonschema", "numpy", "pandas", "peft", "psutil",
    "rensa", "safetensors", "sentence_transformers", "torch", "transformers", "usearch", "vllm", "yaml",
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


def test_the_public_names_are_imported_when_they_are_used() -> None:
    code = """
import sys, datacreate
assert not [name for name in sys.modules if name.startswith("datacreate.") or name == "pydantic"]
from datacreate import CreateConfig, create
assert CreateConfig(example="mine.json", count=3).count == 3
print(create.__module__, hasattr(datacreate, "other"))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["datacreate.creation.loop", "False"]
