"""One supervised fine-tune with a weighted prompt loss, on one rank or many.

`sft.train(config, output_dir)` runs a complete fine-tune; `python -m trainers CONFIG` calls it.
Read `sft`, `step`, `loss`, `heldout` and `schedule` first. The packages contain the code that these
modules use. trainers never imports evals, orchestrator, ray or mlflow. tests/test_layers.py
declares the order in which the packages may import each other.
"""
