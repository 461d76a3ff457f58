"""`datacreate` with a scripted client, several times: `create ... --then show ... --then report ...`.

In one process, so that libraries are imported once. Prints the exit codes, as JSON, in its last line.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from datacreate.cli.main import main
from tests.support.inprocess import scripted_client

if __name__ == "__main__":
    # The steps of a sweep are processes of their own, with the scripted client.
    import_module("datacreate.sweep.run").COMMAND = (sys.executable, "-m", "tests.support.driver")
    import_module("datacreate.engines.vllm").VLLM.packages = ()  # `doctor` would import it, which takes long
    codes: list[object] = []
    words = sys.argv[1:]
    with scripted_client({}):
        while words:
            end = words.index("--then") if "--then" in words else len(words)
            sys.argv, words = ["datacreate", *words[:end]], words[end + 1 :]
            try:
                main()
            except SystemExit as ended:
                codes.append(ended.code)
    print(json.dumps(codes))
