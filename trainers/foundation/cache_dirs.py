"""Location of the cache folder. Its content (tokens, the demo's data and model) can be rebuilt."""

import os
from pathlib import Path

from platformdirs import user_cache_dir


def cache_dir() -> Path:
    """Return the cache folder: `PLW_CACHE_DIR`, or else the user's cache folder for plw-sweep.

    The path is absolute, because cluster workers have other working directories. The folder may not
    exist.
    """
    chosen = os.environ.get("PLW_CACHE_DIR")
    return Path(chosen or user_cache_dir("plw-sweep", appauthor=False)).expanduser().absolute()
