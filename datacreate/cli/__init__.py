"""Layer 6: parse, call, print, and nothing else."""
