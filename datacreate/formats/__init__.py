"""Formats: the JSON Schema of one example, the role of each field, and how an answer becomes examples."""
