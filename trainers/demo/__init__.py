"""The demo's data (Python's documentation strings) and its model (SmolLM2-135M-Instruct).

`data.python_docs()` returns the data, `model.demo_model_path()` prepares the model. Only
`data.readers` and `models.loading` import this package. Other code uses the names `demo:...` in
`data.path` and `model.path`.
"""
