"""Fine-tunes an encoder on a training set and measures it on benchmarks. In the order of reading:

training_rows.py    runs, files and benchmarks -> classification examples; which of them are selection rows
encoder.py          examples -> token ids; an encoder with a classification head; a model of one seed and learning rate
hyperparameters.py  those of the default recipe, and of the paper's
train.py            all trials of a training, one process per GPU; the best learning rate of each seed is kept
evaluate.py         models x benchmarks -> predictions and scores
statistics.py       scores, intervals, comparisons
records.py          the files of a training and of its evaluations
"""
