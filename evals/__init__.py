"""Scores of one checkpoint: held-out losses by role, benchmarks and judged comparisons.

`run.score_model(...)` takes every measure of a `config.EvalConfig` and returns a `ScoreCard`.
Nothing here imports orchestrator, ray, mlflow or deepspeed. tests/test_layers.py holds the order
in which the packages may import each other.
"""
