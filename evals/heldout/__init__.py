"""Measures on held-out examples: loss, multiple choice, generation, memorisation.

`run` imports the `measure_*` functions. orchestrator may import `examples`, which selects and
stores the examples without a model.
"""
