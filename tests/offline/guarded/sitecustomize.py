"""Python runs this first in every process that has this folder on PYTHONPATH and $GUARD_LOG."""

import os

if "GUARD_LOG" in os.environ:
    from tests.support.guard import guard_and_log

    guard_and_log()
