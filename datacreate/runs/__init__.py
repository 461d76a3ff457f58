"""Runs: what was asked for, what happened, and what came of it, in one directory."""
