"""Filters: reject examples that repeat earlier examples or test rows.

filter.py           the interface of a filter
registry.py         the list of filters (how to add one: CONTRIBUTING.md), and their options
exact.py            equal inputs; near.py: similar words; semantic.py: similar embeddings
near_index.py       the index of near.py, which other packages use, too
decontamination.py  rows of `--decontaminate`
"""
