"""Prompts: generation.py asks for new examples, label_scoring.py asks for the label of an example."""
