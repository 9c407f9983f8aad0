"""One supervised fine-tune with a weighted prompt loss, on one rank or many.

`sft.train(config, output_dir)` is the whole run; `python -m trainers CONFIG` calls it. Read `sft`,
`step`, `loss`, `heldout` and `schedule` from top to bottom; the packages hold what they use.
Nothing here imports evals, orchestrator, ray or mlflow. tests/test_layers.py holds the order in
which the packages may import each other.
"""
