"""Selection: chooses the examples that the next prompts show.

strategies.py        the strategies; a new one is one function
queue.py             the order of parents: chains, tree, farthest first, levels (the tree of the paper)
embeddings.py        sentence embeddings, and a file of those that passed
shots.py             the examples that a prompt shows beside the parent
"""
