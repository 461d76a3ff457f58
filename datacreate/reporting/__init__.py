"""`datacreate report`: evaluations and creation runs -> tables, comparisons and one HTML page.

reporting/
  collect.py     folders -> evaluations and creation runs, and what had to be skipped
  results.py     the records of a report: cells, comparisons, created sets
  cells.py       evaluations of one condition on one test set -> a cell; two cells -> a comparison
  build.py       everything found -> a Report: which cells share a table, the paper's results beside them
  sections.py    a Report -> sections of tables, the same for Markdown and for the page
  render.py      the files: Markdown, CSV, JSON, HTML page with plots
  run_page.py    one run -> one HTML page (`datacreate show --html`)
"""
