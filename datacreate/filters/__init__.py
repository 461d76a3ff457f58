"""Filters: reject examples that repeat earlier examples or test rows.

filter.py         the interface of a filter
options.py        the options of all filters
registry.py       the list of filters (how to add one: CONTRIBUTING.md)
exact.py          equal inputs; near.py: similar words; semantic.py: similar embeddings
contamination.py  rows of `--decontaminate`
"""
