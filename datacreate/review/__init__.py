"""Review: people accept, reject or edit the rows of a run.

review_rows.py  the rows, their order and their flags
session.py      checks and stores decisions
app.py          the terminal program
spreadsheet.py  CSV export and import
"""
