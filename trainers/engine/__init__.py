"""The DeepSpeed engine, its settings, the process group and the memory estimate.

The main entry points are `ranks.join_ranks()` and `zero.ZeroEngine(model, ...)`. Only `zero`
imports deepspeed. orchestrator may import `memory`.
"""

import os

# torch reads this at a process's first matrix product on a GPU, and without it rejects every later
# deterministic run. So the first import of this package sets it, for all runs. 8 buffers of 4 MiB
# are torch's default on Hopper GPUs.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
