"""Filters: reject examples that repeat earlier examples or held-out benchmark rows."""
