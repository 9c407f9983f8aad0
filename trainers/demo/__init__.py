"""The demo's data (Python's documentation strings) and its model (SmolLM2-135M-Instruct).

Only `data.readers` and `models.loading` import from here: all other code reads the demo through
the names `demo:...` in `data.path` and `model.path`.
"""
