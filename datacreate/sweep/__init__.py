"""Runs a grid of experiments: creates sets, trains encoders on them, and evaluates the models.

A plan file (YAML) becomes cells. A cell is one set of rows (created by one strategy and generator from one
formatting example, or human), every encoder trained on it in every size, and their evaluations. A cell has
steps: plain `datacreate` commands, each run as a child process, so that the engine has left the GPU before
training starts, and everything a sweep does can be done by hand.

    sweep/
      plan.py     a plan file, validated
      cells.py    a plan -> its cells and their steps
      folder.py   the folder: locks of cells, status and log of each step
      run.py      runs the steps, on servers that the cells of a generator share

    OUT/runs/CELL/                    a created set
    OUT/trained/CELL/ROWS-ENCODER-N/  a training: one model per seed, with its evaluations
    OUT/cells/CELL/STEP.json, .log    status and output of a step
"""

from __future__ import annotations

from datacreate.sweep.cells import Step, SweepCell, build_cells
from datacreate.sweep.plan import SweepPlan, load_plan
from datacreate.sweep.run import Outcome, Sweep

__all__ = ["Outcome", "Step", "Sweep", "SweepCell", "SweepPlan", "build_cells", "load_plan"]
