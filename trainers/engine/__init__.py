"""The DeepSpeed engine, its settings, the process group and the memory estimate.

`zero` is the only module that imports deepspeed. The training loop and the runs package import
`zero.ZeroEngine` and `ranks.Ranks`; orchestrator may import `memory`.
"""
