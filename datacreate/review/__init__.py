"""People decide about the rows of a run: in a terminal program, or in a spreadsheet."""
