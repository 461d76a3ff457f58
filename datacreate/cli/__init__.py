"""Floor 5: parse, call, print, and nothing else."""
