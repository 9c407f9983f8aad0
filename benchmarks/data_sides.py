"""Run one process of `benchmarks.data`: `python -m benchmarks.data_sides JOB RESULT`."""

import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import datasets
import pyarrow.compute
from transformers import PreTrainedTokenizerBase

from benchmarks.data import Job, Measured
from trainers.config import ModelConfig
from trainers.data.batches import global_batch_indices
from trainers.data.template_spans import ALPACA_WITHOUT_INPUT
from trainers.data.training_data import load_training_data
from trainers.data_config import DataConfig
from trainers.foundation.files import read_json, write_json
from trainers.models.loading import load_tokenizer

BATCH_SIZE = 128
MAX_LENGTH = 512
_SAMPLE_INTERVAL_S = 0.02


class PeakMemory:
    """Samples this process's private memory in the background."""

    def __init__(self) -> None:
        self.bytes = 0
        self._is_finished = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def finish(self) -> int:
        """Stop, and return the highest sample."""
        self._is_finished.set()
        self._thread.join()
        return self.bytes

    def _sample(self) -> None:
        while not self._is_finished.wait(_SAMPLE_INTERVAL_S):
            self.bytes = max(self.bytes, private_bytes())


def private_bytes() -> int:
    """Return the private memory of this process, without pages of mapped files."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def prepare_ours(job: Job) -> int:
    """Load the data as a training rank does; return the number of tokens."""
    os.environ["PLW_CACHE_DIR"] = job.folder
    data = DataConfig(path=job.data, template="alpaca", max_length=MAX_LENGTH, heldout_examples=0)
    examples = load_training_data(
        ModelConfig(path=job.model), data, with_heldout=False, is_main=job.is_main
    ).examples
    for index in global_batch_indices(0, len(examples), BATCH_SIZE, 0):
        assert len(examples[index].input_ids) > 0
    return int(examples.lengths.sum())


def prepare_datasets(job: Job) -> int:
    """Load, tokenise and shuffle the data with `datasets`; return the number of tokens."""
    tokenizer = load_tokenizer(ModelConfig(path=job.model))
    rows = datasets.load_dataset("json", data_files=job.data, cache_dir=job.folder, split="train")
    encoded = rows.map(
        tokenise,
        batched=True,
        remove_columns=rows.column_names,
        fn_kwargs={"tokenizer": tokenizer},
    )
    assert len(encoded.shuffle(seed=0)[:BATCH_SIZE]["input_ids"]) == BATCH_SIZE
    lengths = pyarrow.compute.list_value_length(encoded.data.column("input_ids"))
    return int(pyarrow.compute.sum(lengths).as_py())


def tokenise(
    records: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase
) -> dict[str, list[list[int]]]:
    """Return the token ids and labels of Alpaca records."""
    prompts = [ALPACA_WITHOUT_INPUT.format(instruction=text) for text in records["instruction"]]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answer_ids = [
        [*ids, tokenizer.eos_token_id]
        for ids in tokenizer(records["output"], add_special_tokens=False)["input_ids"]
    ]
    both = list(zip(prompt_ids, answer_ids, strict=True))
    return {
        "input_ids": [(prompt + answer)[-MAX_LENGTH:] for prompt, answer in both],
        "labels": [([-100] * len(prompt) + answer)[-MAX_LENGTH:] for prompt, answer in both],
    }


def main(job_path: str, result_path: str) -> None:
    """Run a job and write what was measured."""
    job = Job(**read_json(Path(job_path)))
    memory, began, cpu_began = PeakMemory(), time.monotonic(), time.process_time()
    num_tokens = prepare_ours(job) if job.side == "ours" else prepare_datasets(job)
    measured = Measured(
        seconds=time.monotonic() - began,
        cpu_seconds=time.process_time() - cpu_began,
        peak_memory_bytes=memory.finish(),
        num_tokens=num_tokens,
    )
    write_json(Path(result_path), asdict(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
