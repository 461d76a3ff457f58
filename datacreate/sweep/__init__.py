"""A plan's grid: which sets are created, trained on and measured, each step a process of its own.

A *plan* (a YAML file) becomes *cells*. A cell is what one job does by itself: one set of rows (created
by one strategy and generator from one formatting example, or human), every encoder trained on it in
every size, and their evaluations. Its *steps* are plain `datacreate` commands, so that the engine has left
the GPU before fine-tuning begins, and everything a sweep does can be done by hand.

    sweep/
      plan.py       what a plan says, typed
      reading.py    find a plan and read it
      names.py      names in a plan, checked; hints for misspelt ones
      options.py    further options of `create` and `train` in a plan, checked
      cells.py      a plan -> its cells
      steps.py      what each does: one command a step
      needs.py      what a step needs that may not be here
      folder.py     the sweep's folder: what is finished, what a changed plan makes stale
      process.py    one step as a process
      running.py    cell after cell

    OUT/plan.json                     the plan as of the last run
    OUT/runs/CELL/                    a created set
    OUT/trained/CELL/ROWS-ENCODER-N/  a training: a model per seed, its evaluations
    OUT/zero-shot/CELL/               the generator itself on the test set
    OUT/cells/CELL/STEP.json, .log    what became of a step, and all that it said
    OUT/replaced/                     created sets that a changed plan asked for otherwise
"""

from __future__ import annotations

from datacreate.sweep.cells import Cell, cells_of
from datacreate.sweep.plan import Plan
from datacreate.sweep.reading import load_plan
from datacreate.sweep.running import Outcome, Progress, Silent, Sweep
from datacreate.sweep.steps import Step

__all__ = ["Cell", "Outcome", "Plan", "Progress", "Silent", "Step", "Sweep", "cells_of", "load_plan"]
