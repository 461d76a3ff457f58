"""Floor 1: what an example is, what the model is asked for, and what counts as an answer."""
