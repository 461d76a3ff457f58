#!/bin/sh
# Check this bundle and install datacreate from it, without a network: finds the Python it was made for.
#
#   sh install.sh [--to FOLDER] [--venv DIR] [--home DIR] [--verify]
here=$(cd "$(dirname "$0")" && pwd)
for python in ${PYTHON:+"$PYTHON"} python3 python@PYTHON@; do
    if "$python" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "@PYTHON@")' 2>/dev/null; then
        exec "$python" "$here/install.py" "$@"
    fi
done
echo "install: this bundle is for Python @PYTHON@, which is not found: install it or set PYTHON=FILE" >&2
exit 1
