"""datacreate: training data from one formatting example, written by a language model on your own hardware.

    from pathlib import Path
    from datacreate.creation.loop import create
    from datacreate.runs.config import CreateConfig

    summary = create(CreateConfig(example=Path("mine.json"), count=100))
    print(summary["accepted"], summary["rejected"])

`create` does what `datacreate create` does, and returns the content of summary.json. A second call with the same
settings resumes the run. Importing datacreate changes no environment variable and no global state.

Modules beside the packages:

    commands          dry_run, filter_rows, improve, zero_shot, attribute_suggestion, doctor
    for all packages  errors, messages, settings, files, locking, signals, child_process, libraries, hardware, intervals

docs/architecture.md describes them and the packages.
"""
