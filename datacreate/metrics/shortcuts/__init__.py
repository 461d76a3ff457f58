"""Shortcuts: what a model could learn instead of the task, measured.

shortcuts/
  measure.py    which shortcuts a format can have; all of them on a set of rows
  views.py      rows as shortcuts see them; which must stay together
  surface.py    counting: the longest option, the question's words, the position of the right one
  blind.py      cross-validated classifiers that see a part of each row
  shortcut.py   one result, its sampling error, and when it is a warning
"""

from __future__ import annotations

from datacreate.metrics.shortcuts.measure import MOST_ROWS, shortcuts, why_none
from datacreate.metrics.shortcuts.shortcut import Shortcut

__all__ = ["MOST_ROWS", "Shortcut", "shortcuts", "why_none"]
