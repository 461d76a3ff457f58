"""What a training set is worth: an encoder fine-tuned on it and measured.

finetuning/
  rows.py        runs, files and benchmarks -> the rows to train on
  encode.py      rows -> token ids for a head
  settings.py    how to train: ours, and the paper's
  train.py       one model per seed
  predict.py     a model and rows -> an answer each
  evaluate.py    models x benchmarks -> predictions and scores
  statistics.py  scores, intervals, comparisons
  record.py      what is kept of all this
"""
