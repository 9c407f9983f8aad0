"""One supervised fine-tune with a weighted prompt loss, on one rank or many.

`train(config, output_dir)` of `sft` runs a complete fine-tune, as `python -m trainers CONFIG` does.
The names in `__all__` are imported on first use (docs/python.md).

Read `sft`, `step`, `loss`, `heldout` and `schedule` first. The packages contain the code that these
modules use. trainers never imports evals, orchestrator, ray or mlflow. tests/test_layers.py
declares the order in which the packages may import each other.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainers.config import TrainConfig
    from trainers.data.readers import read_examples
    from trainers.sft import train

__all__ = ["TrainConfig", "read_examples", "train"]


def __getattr__(name: str) -> Any:
    if name == "TrainConfig":
        from trainers.config import TrainConfig

        return TrainConfig
    if name == "read_examples":
        from trainers.data.readers import read_examples

        return read_examples
    if name == "train":
        from trainers.sft import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
