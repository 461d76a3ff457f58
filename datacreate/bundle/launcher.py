"""Begin here: `python3 install.py` checks this bundle and installs datacreate from it; `--help` tells how."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.dont_write_bytecode = True  # the bundle stays as it is
    sys.path.insert(0, str(here / "installer"))
    from datacreate.bundle.farside import main

    sys.exit(main(here))
