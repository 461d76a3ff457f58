"""What commands do that have no package of their own.

dry_run.py               `create`, `train` and `improve` with `--dry-run`
filter_rows.py           `filter`
improve.py               `improve`
zero_shot.py             `evaluate --zero-shot`
attribute_suggestion.py  `attributes suggest`
doctor.py                `doctor`
"""
