"""What scores say about the prompt loss weight: models, intervals, verdicts and power.

Pure numerics in float64: nothing here reads a sweep, draws or trains.
"""
