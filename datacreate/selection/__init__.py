"""Selection: which accepted examples become the next prompts."""
