"""`create` from Python, as a notebook calls them: python_api.py MODEL ENCODER STRATEGY FOLDER."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(model: str, encoder: str, strategy: str, folder: Path) -> None:
    before = dict(os.environ)
    from datacreate.creation.loop import create
    from datacreate.runs.config import CreateConfig
    from tests.support.making import COMMONSENSE
    from tests.support.scripted import ScriptedClient, answering

    assert dict(os.environ) == before, "an import changed an environment variable"
    config = CreateConfig(
        example=COMMONSENSE,
        count=30,
        run_dir=folder / "run",
        model=model,
        strategy=strategy,
        embedding_model=encoder,
        verify="off",
    )
    create(config, client_factory=lambda *_: ScriptedClient(answering()))


if __name__ == "__main__":
    main(*sys.argv[1:4], Path(sys.argv[4]))
