"""What is here, what is missing, and what to type: looked at without a network and without loading anything.

`examine` looks at the machine and what is installed on it; with a *job* it also says whether that
job could run here. Each finding is a line: ok, note or red, and a red one ends with the command
that fixes it. Versions are read from metadata, checkpoints from their headers; torch is not
imported.

    doctor/
      line.py       one finding; the kinds of work that may need it
      software.py   Python, datacreate, engines, torch and the rest against the pinned versions
      engines.py    which engine is taken, and whether a model fits it
      machine.py    GPU and driver, processor, memory, compiler
      gpu.py        what nvidia-smi says
      homes.py      the home: can it be written, does anybody hold it; room on the disks
      presets.py    checkpoints and encoders
      imported.py   benchmarks
      cluster.py    SLURM
      network.py    what the libraries may do, and what can be reached
      findings.py   what is found about a job
      jobs.py       what each kind of job needs
      examine.py    all of it
"""

from __future__ import annotations

from datacreate.doctor.examine import Report, examine
from datacreate.doctor.findings import Job
from datacreate.doctor.jobs import create_job, evaluate_job, sweep_job, train_job
from datacreate.doctor.line import WORKS, Line, State, Work

__all__ = [
    "WORKS",
    "Job",
    "Line",
    "Report",
    "State",
    "Work",
    "create_job",
    "evaluate_job",
    "examine",
    "sweep_job",
    "train_job",
]
