"""Fine-tunes an encoder on a training set and measures it on benchmarks. In reading order:

training_rows.py    a run, a file or a benchmark -> rows -> classification examples
encoder.py          examples -> token ids; an encoder with a classification head
hyperparameters.py  the default hyperparameters, and those of the paper
train.py            what is trained: rows, encoder, hyperparameters; validation rows; the best model of each seed
trials.py           a model of one seed and learning rate; all of a training, one process per GPU
evaluate.py         models x benchmarks -> predictions and scores
statistics.py       scores, intervals, comparisons
records.py          the files of a training and of its evaluations
"""
