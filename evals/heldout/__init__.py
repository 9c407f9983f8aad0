"""Evaluations on held-out examples: loss, multiple choice, generation and memorisation.

`run` imports the `evaluate_*` functions. orchestrator may import `examples`, which selects and
stores the examples without a model.
"""
