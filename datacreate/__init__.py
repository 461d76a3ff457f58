"""datacreate: training data from one formatting example, written by a language model on your own hardware.

    from pathlib import Path
    from datacreate.create import create
    from datacreate.runs.config import CreateConfig

    summary = create(CreateConfig(example=Path("mine.json"), count=100))

`create` does what `datacreate create` does. A second call with the same settings resumes the run. Importing
datacreate changes no environment variable and no global state.
"""
