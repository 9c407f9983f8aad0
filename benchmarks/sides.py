"""Run one side of `benchmarks.train`: `python -m benchmarks.sides JOB RESULT`."""

import json
import math
import resource
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase, TrainerCallback

from benchmarks.train import Job, MatmulReference, Measured
from trainers.config import TrainConfig
from trainers.data.batches import global_batch_indices
from trainers.data.roles import COMPLETION_ROLES, EncodedExample
from trainers.data.tokenize import encode_examples, read_split
from trainers.foundation.errors import InputError
from trainers.models.loading import load_tokenizer, resolve_model_path
from trainers.runs.results import StepMetrics

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Matrix size: large enough to reach the peak, small enough to take seconds.
MATMUL_SIZE = {"cpu": 4096, "cuda": 8192}
MATMUL_TRIES = 5


class StepLog:
    """Collects time, loss and peak memory at the end of each step."""

    def __init__(self) -> None:
        self.step_ends_s: list[float] = []
        self.losses: list[float] = []
        self.peak_memory_bytes = 0

    def append(self, loss: float) -> None:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        self.step_ends_s.append(time.monotonic())
        self.losses.append(loss)
        self.peak_memory_bytes = peak_memory_bytes()

    def measured(self) -> Measured:
        return Measured(
            step_ends_s=self.step_ends_s,
            losses=self.losses,
            peak_memory_bytes=self.peak_memory_bytes,
        )


def peak_memory_bytes() -> int:
    """Return this process's peak memory: GPU memory, or resident memory without a GPU."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss includes the parent process's peak.
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def run_ours(config: TrainConfig) -> Measured:
    """Fine-tune with this project's trainer."""
    from trainers.sft import train

    log = StepLog()

    def on_step(metrics: StepMetrics) -> None:
        log.append(metrics.loss)

    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder, "out"), on_step=on_step)
    return log.measured()


def run_trl(config: TrainConfig, *, packing: bool, defaults: bool) -> Measured:
    """Fine-tune with TRL on the same token ids, with labels on the same completion tokens.

    Each epoch is one step. TRL sums the loss over all micro-batches of the accumulation window and
    divides by their number of labels. An incomplete last window is also a step.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer, examples = read_data(config)
    window = global_batch_indices(0, len(examples), config.batch.global_batch_size, config.seed)
    dataset = Dataset.from_list(
        [
            {
                "input_ids": [int(token) for token in examples[index].input_ids],
                "completion_mask": [
                    int(role in COMPLETION_ROLES) for role in examples[index].roles
                ],
            }
            for index in window
        ]
    )
    assert config.schedule.steps is not None
    task = {
        "completion_only_loss": True,
        # TRL's bfloat16 is autocast over float32 weights; our side keeps a float32 copy of the
        # weights. TRL's default, True, does not run on a CPU.
        "bf16": config.deepspeed.precision == "bfloat16",
        "num_train_epochs": config.schedule.steps,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": config.seed,
    }
    micro_batch_size = SFTConfig.per_device_train_batch_size
    if not defaults:
        micro_batch_size = config.batch.micro_batch_size
        task |= _same_settings(config, packing=packing)
    log = StepLog()

    class Callback(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                log.append(logs["loss"])

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=resolve_model_path(config.model.path),
            args=SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=micro_batch_size,
                # Enough micro-batches for the whole data set, which has fewer rows after packing.
                gradient_accumulation_steps=math.ceil(len(examples) / micro_batch_size),
                **task,
            ),
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=[Callback()],
        )
        trainer.train()
    return log.measured()


def _same_settings(config: TrainConfig, *, packing: bool) -> dict[str, Any]:
    """Convert `config` to arguments of TRL's `SFTConfig`."""
    return {
        "packing": packing,
        "max_length": config.data.max_length,
        "train_sampling_strategy": "sequential",
        "model_init_kwargs": {"attn_implementation": config.model.attention},
        "gradient_checkpointing": config.deepspeed.gradient_checkpointing,
        "lr_scheduler_type": config.schedule.kind,
        "learning_rate": config.optimizer.learning_rate,
        "weight_decay": config.optimizer.weight_decay,
        "adam_beta1": config.optimizer.beta1,
        "adam_beta2": config.optimizer.beta2,
        "adam_epsilon": config.optimizer.epsilon,
        "max_grad_norm": config.optimizer.max_grad_norm,
    }


def measure_reference(config: TrainConfig) -> MatmulReference:
    """Measure the speed of a matrix product, and count the useful FLOP of a step.

    `benchmarks.train` defines the useful FLOP.
    """
    _, examples = read_data(config)
    with torch.device("meta"):
        path = resolve_model_path(config.model.path)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    embeddings = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
    parameters = sum(p.numel() for p in model.parameters() if p not in embeddings)
    tokens = sum(len(example.input_ids) for example in examples)
    completion = sum(example.num_completion_tokens for example in examples)
    head = model.get_output_embeddings().weight.numel()
    return MatmulReference(
        matmul_flops_per_s=matmul_flops_per_s(getattr(torch, config.deepspeed.precision)),
        flops_per_step=6.0 * (parameters * tokens + head * completion),
        num_examples=len(examples),
        tokens_per_step=tokens,
        completion_tokens_per_step=completion,
    )


def matmul_flops_per_s(dtype: torch.dtype) -> float:
    """Return the FLOP per second of the fastest of several products of large square matrices."""
    size = MATMUL_SIZE[DEVICE]
    left = torch.randn(size, size, device=DEVICE).to(dtype)
    right = torch.randn(size, size, device=DEVICE).to(dtype)
    seconds = math.inf
    for _ in range(MATMUL_TRIES + 1):
        started = time.monotonic()
        product = left @ right
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        seconds = min(seconds, time.monotonic() - started)
        del product
    return 2.0 * size**3 / seconds


def read_data(config: TrainConfig) -> tuple[PreTrainedTokenizerBase, list[EncodedExample]]:
    """Return the tokenizer and the examples that `trainers.sft.train` uses for `config`."""
    tokenizer = load_tokenizer(config.model)
    return tokenizer, list(encode_examples(read_split(config.data).train, config.data, tokenizer))


def main() -> int:
    job_file, result_file = map(Path, sys.argv[1:])
    job = Job(**json.loads(job_file.read_text()))
    torch.set_num_threads(job.threads)
    result: Measured | MatmulReference
    try:
        config = TrainConfig.model_validate(job.config)
        if job.side == "ours":
            result = run_ours(config)
        elif job.side == "reference":
            result = measure_reference(config)
        else:
            defaults = job.side == "trl_defaults"
            result = run_trl(config, packing=job.packing, defaults=defaults)
    except InputError as error:
        print(error)
        return 2
    result_file.write_text(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
