"""Filters: checks of an example against what is accepted and against held-out rows."""
