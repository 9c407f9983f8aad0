"""Suppress the terminal output of transformers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging

# transformers' logging module has no type annotations.
_transformers_logging: Any = logging


@contextmanager
def suppress_transformers_output() -> Iterator[None]:
    """Hide transformers' warnings and progress bars from the terminal.

    Our loading functions check everything that the warnings about a checkpoint would report.
    """
    verbosity = _transformers_logging.get_verbosity()
    shows_progress = _transformers_logging.is_progress_bar_enabled()
    _transformers_logging.set_verbosity_error()
    _transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        _transformers_logging.set_verbosity(verbosity)
        if shows_progress:
            _transformers_logging.enable_progress_bar()
