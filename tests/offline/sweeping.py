"""`datacreate`, whose sweep takes its steps with the scripted engine."""

from __future__ import annotations

import sys
from importlib import import_module

from datacreate.cli.main import main

if __name__ == "__main__":
    import_module("datacreate.sweep.running").COMMAND = (sys.executable, "-m", "tests.driver")
    sys.argv[0] = "datacreate"
    main()
