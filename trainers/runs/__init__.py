"""What a run writes and how it ends: checkpoints, metrics.jsonl, its result, stop signals.

`sft` imports everything it needs from here. orchestrator may import `results` (plain data, without
torch) and the exceptions of `stop_signals`.
"""
