"""What holds for all tests: threads that sleep while they wait, and no way out to a hub."""

import os

# Before torch is imported anywhere: see orchestrator/cli.py for what spinning threads cost.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("RAY_ADDRESS", None)
