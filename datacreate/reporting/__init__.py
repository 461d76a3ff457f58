"""What the runs are worth: from folders of predictions to tables, curves and one page.

reporting/
  collect.py       folders -> evaluations, creation runs, and what had to be skipped
  paper.py         the paper's own figures, shown beside ours
  tables.py        the types that everything below fills in or writes out
  intervals.py     bootstrap over formatting example, training seed and row
  cells.py         the models of one arm on one test set -> a cell
  lines.py         which models stand in which row
  comparisons.py   the arms of a row against each other
  arrange.py       rows -> tables, none of which mixes what cannot be compared
  curves.py        primary figure against number of training rows
  created.py       a creation run -> what its rows are like
  distance.py      how far created questions are from the formatting example
  build.py         all of it -> a Report
  as_markdown.py, as_csv.py, as_json.py   a Report -> text
  page.py          a Report -> one HTML page, with figures, overview, lineage and wording
  files.py         the files of a report's folder
"""
