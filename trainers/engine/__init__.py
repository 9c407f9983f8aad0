"""The DeepSpeed engine, its settings, the process group and the memory estimate.

The main entry points are `ranks.join_ranks()` and `zero.ZeroEngine(model, ...)`. Only `zero`
imports deepspeed. orchestrator may import `memory`.
"""
