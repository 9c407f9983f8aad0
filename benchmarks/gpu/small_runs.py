"""Fine-tunes that take seconds: a model folder, a data file and the settings."""

import json
import random
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.models import save_random_model

_WORDS = ("red", "green", "blue", "one", "two", "three", "add", "name", "list", "the", "of", "and")


def run_settings(bench: Bench, folder: Path, *, steps: int, **changes: Any) -> dict[str, Any]:
    """Return the settings of a fine-tune on a model and data that are written to `folder`."""
    model, data = folder / "model", folder / "data.jsonl"
    if not data.exists():
        save_random_model(model, "tiny" if bench.is_small else "test", bench.device)
        _write_data(data)
    return {
        "model": {"path": str(model)},
        "data": {
            "path": str(data),
            "template": "plain",
            "max_length": 256,
            "heldout_examples": 16,
        },
        "loss": {"prompt_loss_weight": 0.1},
        "optimizer": {"learning_rate": 1e-3, "weight_decay": 0.1},
        "schedule": {"steps": steps},
        # Packed, because its attention is another kernel on a GPU.
        "batch": {"global_batch_size": 16, "packing": True, "max_tokens": 512},
        "deepspeed": {"zero_stage": 2, "precision": "bfloat16"},
        **changes,
    }


def _write_data(path: Path) -> None:
    generator = random.Random(0)

    def words(count: int) -> str:
        return " ".join(generator.choices(_WORDS, k=count))

    records = [
        {"prompt": words(generator.randint(4, 24)), "completion": words(generator.randint(2, 8))}
        for _ in range(200)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
