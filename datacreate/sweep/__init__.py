"""Runs a grid of experiments: creates sets, trains encoders on them, and evaluates the models.

A *plan* is a YAML file that declares the grid. Its *conditions* say what encoders are trained on: human rows, or rows
that a strategy creates. A *cell* is one set of rows (human, or created by one generator from the formatting example of
one seed), all encoders that are trained on it, and their evaluations. A *step* of a cell is one `datacreate` command,
which runs as a child process: its engine has left the GPU before the next step starts, and everything that a sweep does
can be done by hand.

    sweep/
      plan.py     reads and checks a plan
      cells.py    the cells of a plan, and their steps
      folder.py   the folder: locks of cells, status and log of each step
      run.py      runs the steps, on servers that the cells of a generator share

    OUT/runs/CELL/                    a created set
    OUT/trained/CELL/ROWS-ENCODER-N/  a training: one model per seed, with its evaluations
    OUT/cells/CELL/STEP.json, .log    status and output of a step
"""
