"""datacreate: training data from one example, written by a model on your own hardware.

    from pathlib import Path
    from datacreate.create import create
    from datacreate.runs.config import CreateConfig

    summary = create(CreateConfig(example=Path("mine.json"), count=100, run_dir=Path("runs/mine")))

`create` does what `datacreate create` does. A second call with the same configuration resumes the run.
"""

from datacreate.offline import go_offline

go_offline()  # here, so that it comes before every library
