"""Filtering of rows that exist: what `datacreate filter` does."""
