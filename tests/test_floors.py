"""Who may import whom: the contracts of pyproject.toml, and what may be imported at module level."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import datacreate

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(datacreate.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

HEAVY = {
    *("vllm", "torch", "transformers", "peft", "sentence_transformers", "datasets", "accelerate"),
    *("scipy", "sklearn", "statsmodels", "plotly"),
}
"""Libraries that take a second or more to import: only inside the function that needs them."""

ENGINE_PROCESS = PACKAGE / "engines" / "vllm_worker.py"
"""A process of its own that exists to load vLLM: it may import it at once."""


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


def test_every_room_imports_its_own_floor_or_a_lower_one() -> None:
    checker = Path(sys.executable).parent / "lint-imports"
    told = subprocess.run([checker, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_late(module: Path) -> None:
    if module == ENGINE_PROCESS:
        return
    tree = ast.parse(module.read_text(encoding="utf-8"))
    assert HEAVY.isdisjoint(imported_at_once(tree.body))
