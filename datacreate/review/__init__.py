"""Review: people accept, reject or edit the rows of a run.

session.py      the rows, their order and flags; checks and stores decisions
app.py          the terminal program
spreadsheet.py  CSV export and import
"""
