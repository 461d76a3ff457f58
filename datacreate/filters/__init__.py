"""Filters: reject examples that repeat earlier examples or test rows."""
