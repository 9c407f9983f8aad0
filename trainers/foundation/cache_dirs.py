"""Where things that can be made again are kept: the demo's data and its model."""

import os
from pathlib import Path

from platformdirs import user_cache_dir


def cache_dir() -> Path:
    """The folder of the cache: `PLW_CACHE_DIR`, or the user's cache folder for plw-sweep.

    Absolute, because workers of a cluster run in other working folders. It need not exist yet.
    """
    chosen = os.environ.get("PLW_CACHE_DIR")
    return Path(chosen or user_cache_dir("plw-sweep", appauthor=False)).expanduser().absolute()
