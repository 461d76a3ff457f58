"""Bundles: everything that a machine without a network needs, in one folder, proven byte by byte.

bundle/
  make.py        what is wanted, whether it fits, and the order of the work
  gather.py      what the home has of it
  filling.py     the folder being filled: whole files, pieces, a journal to go on from
  wheels.py      the environment, fetched by pip for another machine
  closure.py     what the wheels require of each other and of that machine
  project.py     this project's wheel and files, and the installer
  contents.py    manifest.json: written, read, compared    (in the bundle, too)
  placing.py     files into the home, the project unpacked  (in the bundle, too)
  farside.py     the whole installation                     (in the bundle, too)
  launcher.py    becomes install.py; install.sh finds its Python
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datacreate.bundle import contents, farside
from datacreate.bundle.contents import Contents, Say
from datacreate.bundle.filling import Target
from datacreate.bundle.make import RequestedSettings, make
from datacreate.errors import BundleError, StorageError

__all__ = ["Contents", "RequestedSettings", "Target", "install", "make", "read", "verify"]


def read(folder: Path) -> Contents:
    """What a bundle holds; BundleError where there is none."""
    with _told():
        return contents.read(folder)


def verify(folder: Path, say: Say) -> Iterator[str]:
    """A line for each file that is missing, altered or not part of it. Raises BundleError for no bundle."""
    with _told():
        yield from contents.problems(folder, contents.read(folder), say)


def install(folder: Path, to: Path, venv: Path | None, home: Path | None, say: Say) -> list[str]:
    """What `python3 install.py` in the bundle does; the lines to type next.

    Raises BundleError where the bundle cannot serve here, StorageError for the disk.
    """
    with _told():
        return farside.install(folder, to, venv, home, say)


@contextmanager
def _told() -> Iterator[None]:
    """The far side's own error, which knows nothing of ours, as one of ours."""
    try:
        yield
    except contents.Refused as refused:
        kind = StorageError if refused.exit_code == StorageError.exit_code else BundleError
        raise kind(str(refused)) from None
