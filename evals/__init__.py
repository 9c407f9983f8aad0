"""Score one checkpoint: held-out losses by role, benchmarks and judged comparisons.

`run.score_model(...)` runs every evaluation of a `config.EvalConfig` and returns a `ScoreCard`.
evals imports neither orchestrator nor ray, mlflow or deepspeed. tests/test_layers.py declares the
order in which its packages may import each other.
"""
