"""Fine-tunes an encoder on a training set and measures it on benchmarks. In the order of reading:

sources.py          a run, a file or a benchmark -> rows
training_rows.py    rows of several sources -> classification examples; which of them are selection rows
encoder.py          examples -> token ids; an encoder with a classification head
hyperparameters.py  those of the default recipe, and of the paper's
train.py            what is trained: rows, encoder, hyperparameters; the best model of each seed is kept
trials.py           a model of one seed and learning rate; all of a training, one process per GPU
evaluate.py         models x benchmarks -> predictions and scores
statistics.py       scores, intervals, comparisons
records.py          the files of a training and of its evaluations
"""
