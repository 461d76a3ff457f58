"""Prompts: the generation prompt and the label-scoring prompt."""
