"""The libraries' own bars and reports, kept off the screen: what is to be said, datacreate says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' and datasets' own bars and reports off the screen."""
    import datasets
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
        datasets.enable_progress_bars()
