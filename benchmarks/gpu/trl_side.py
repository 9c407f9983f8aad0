"""One process of the section `trl`: `python -m benchmarks.gpu.trl_side JOB RESULT`."""

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow
import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.models import byte_tokenizer, random_model
from benchmarks.gpu.speed import TIMED_STEPS, sizes, step_examples
from trainers.data.roles import COMPLETION_ROLES
from trainers.engine.performance import peak_memory_bytes, reset_peak_memory
from trainers.foundation.files import read_json, write_json

_ROWS_PER_PASS = 16


def main(job_file: str, result_file: str) -> None:
    job = read_json(Path(job_file))
    device = torch.device(job["device"])
    bench = Bench(
        device=device,
        is_small=job["is_small"],
        folder=Path(),
        results=Path(),
        deadline=math.inf,
    )
    size = sizes(bench)[0]
    examples = step_examples(bench, size, job["completions"])
    longest = max(len(example.input_ids) for example in examples)
    is_packed = job["layout"] == "packed"
    rows_per_pass = max(1, size.max_tokens // longest) if is_packed else _ROWS_PER_PASS
    columns = {
        "input_ids": [[int(token) for token in example.input_ids] for example in examples],
        "completion_mask": [
            [int(role in COMPLETION_ROLES) for role in example.roles] for example in examples
        ],
    }
    # Without a fingerprint, datasets pickles the table, which dill 0.4.1 cannot on Python 3.12.
    dataset = Dataset(pyarrow.table(columns), fingerprint="examples")
    ends: list[float] = []

    class Callback(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
        def on_step_end(self, *_: Any, **__: Any) -> None:
            bench.synchronize()
            ends.append(time.monotonic())

    reset_peak_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            # Autocast over float32 weights: ours has a float32 copy of its bfloat16 weights.
            model=random_model(size.shape, torch.float32, device),
            args=SFTConfig(
                output_dir=folder,
                bf16=True,
                use_cpu=not bench.is_cuda,
                completion_only_loss=True,
                packing=is_packed,
                max_length=longest,
                per_device_train_batch_size=rows_per_pass,
                # All examples are one step; packing leaves fewer rows.
                gradient_accumulation_steps=math.ceil(len(examples) / rows_per_pass),
                num_train_epochs=1 + TIMED_STEPS,
                train_sampling_strategy="sequential",
                gradient_checkpointing=False,
                learning_rate=1e-6,
                lr_scheduler_type="constant",
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=dataset,
            processing_class=byte_tokenizer(),
            callbacks=[Callback()],
        )
        trainer.train()
    tokens = sum(len(example.input_ids) for example in examples)
    measured = {
        "tokens/s": tokens * (len(ends) - 1) / (ends[-1] - ends[0]),
        "peak memory, GB": (peak_memory_bytes(device) or 0) / 1e9,
    }
    write_json(Path(result_file), measured)


if __name__ == "__main__":
    main(*sys.argv[1:])
