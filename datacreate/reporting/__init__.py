"""`datacreate report`, and the page of a run. In reading order:

results.py     results (of one condition on one test set) and comparisons (of two results); the Report that has them
pgr.py         created rows compared with human rows: performance gap recovered, learning curves
build.py       collects the evaluations and runs below some folders into a Report
charts.py      charts of bars, plots of dots and lines, the templates of pages
render.py      writes a Report as JSON, Markdown, and an HTML page with charts
run_page.py    one run as one HTML page (`datacreate show --html`)
"""
