"""`datacreate report`: evaluations and runs -> tables, comparisons and one HTML page; the page of a run.

reporting/
  build.py       folders -> evaluations and runs -> a Report, the paper's results beside them
  results.py     the records; evaluations of one condition on one test set -> a result; two results -> a comparison
  gaps.py        created rows beside human rows: performance gap recovered, learning curves
  charts.py      charts of bars, plots of dots and lines, the templates of pages
  render.py      a Report -> sections of tables -> Markdown, HTML page with charts; JSON
  run_page.py    one run -> one HTML page (`datacreate show --html`)
"""
