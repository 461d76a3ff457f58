"""Metrics of a data set: diversity of its texts (diversity.py), shortcuts that a model could learn instead
of the task (shortcuts.py), and both as tables beside the metrics of human rows (tables.py)."""
