"""Trials on Ray: the queue, the placement, and the jobs on warm ranks.

The main calls are `sweep_checks.check_sweep` and `sweep.run_sweep`. The command line may import
both modules, cluster may import `placement`; the rest is internal.
"""
