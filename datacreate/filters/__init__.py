"""Filters: reject examples that repeat accepted examples or held-out benchmark rows."""
