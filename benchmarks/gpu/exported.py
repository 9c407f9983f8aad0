"""Section: the exported model, read by transformers alone, has the loss that training had."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.gpu.bench import Bench, Row
from benchmarks.gpu.small_runs import run_settings
from trainers.config import TrainConfig
from trainers.data.roles import EncodedExample, Role
from trainers.data.tokenize import encode_examples, read_split
from trainers.models.loading import load_tokenizer
from trainers.sft import train

# bfloat16 rounds the weights of merged factors, and rows of another length sum in another order.
TOLERANCE = 0.01


def check_export(bench: Bench) -> Iterator[Row]:
    """Yield a row for all weights, for merged LoRA factors, and for the adapter."""
    folder, steps = bench.folder / "export", 10
    for kind in ("all weights", "LoRA"):
        settings = run_settings(
            bench,
            folder,
            steps=steps,
            optimizer={"learning_rate": 5e-3},
            log_heldout_every_steps=steps,
            lora={"rank": 8} if kind == "LoRA" else None,
        )
        config = TrainConfig.model_validate(settings)
        output = folder / kind.replace(" ", "-")
        train(config, output)
        measured = json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])
        heldout = list(
            encode_examples(
                read_split(config.data).heldout, config.data, load_tokenizer(config.model)
            )
        )
        base = _load(config.model.path, bench)
        before = _completion_loss(base, heldout, bench)
        exports = {kind: _load(str(output / "model"), bench)}
        if kind == "LoRA":
            exports["LoRA's adapter"] = PeftModel.from_pretrained(base, str(output / "adapter"))
        for name, model in exports.items():
            loss = _completion_loss(model, heldout, bench)
            expected = measured["heldout_completion_loss"]
            error = abs(loss - expected) / expected
            yield {
                "export": name,
                "held-out loss": loss,
                "training measured": expected,
                "untrained": before,
                "relative difference": error,
                "limit": TOLERANCE,
                # Training must have changed the loss by more than the limit to show anything.
                "passed": error <= TOLERANCE < abs(before - expected) / expected,
            }


def _load(path: str, bench: Bench) -> PreTrainedModel:
    loader: Any = AutoModelForCausalLM
    model: PreTrainedModel = loader.from_pretrained(path, dtype=torch.bfloat16)
    return model.to(bench.device).eval()


@torch.no_grad()
def _completion_loss(
    model: torch.nn.Module, examples: Sequence[EncodedExample], bench: Bench
) -> float:
    """Return the mean next-token loss of completion tokens in nats, without our loss."""
    total, count = 0.0, 0
    for example in examples:
        ids = torch.tensor(example.input_ids).long().to(bench.device)[None]
        is_completion = torch.tensor(example.roles)[1:] == int(Role.COMPLETION)
        log_probabilities = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), dim=-1)
        at_targets = log_probabilities.gather(1, ids[0, 1:, None]).squeeze(1).cpu()
        total -= float(at_targets[is_completion].sum())
        count += int(is_completion.sum())
    return total / count
