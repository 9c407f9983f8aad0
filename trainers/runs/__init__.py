"""The files of a run (checkpoints, metrics.jsonl, results), and its stop signals.

The main entry points are `checkpoint.CheckpointWriter` and `checkpoint.latest_checkpoint(...)`.
orchestrator may import `results` (data classes without torch) and the exceptions of `stop_signals`.
"""
