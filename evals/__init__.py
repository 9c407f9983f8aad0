"""Scores of one checkpoint: held-out losses by role and small benchmarks."""
