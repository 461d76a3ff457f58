"""Verification: a model scores the labels of created examples; label-noise check."""
