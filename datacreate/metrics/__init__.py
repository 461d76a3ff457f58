"""Metrics of a data set: diversity and shortcuts."""
