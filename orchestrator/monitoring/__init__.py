"""Monitor a sweep from any process: find it, show its status, follow its logs, stop it.

`find_sweep` and `open_sweep` open a sweep by name or folder; `watch` shows the sweep until it ends.
The packages trials, inspection, export, cluster and cli may import from here.
"""
