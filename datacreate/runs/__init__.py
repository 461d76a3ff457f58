"""Runs: the settings, the log and the results of a run, in one directory.

config.py               CreateConfig, the settings of `create`; RunSpec, those that decide the result
attributes.py           reads --attributes
formatting_examples.py  reads the formatting examples, and finds their format
directory.py            the files of a run directory, and what is read from its log
log.py                  log.jsonl: records, checksums, writer
decisions.py            decisions of reviewers, as records of the log
stats.py                the statistics of a run, the state of its verification, and summary.json
card.py                 the dataset card, README.md
validated_rows.py       rows of a run or a file, validated
export.py               the layouts of `export`
table_export.py         those that are tables: CSV, Parquet, `datasets`
"""
