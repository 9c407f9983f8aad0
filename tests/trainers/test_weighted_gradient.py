"""The gradient of a fine-tune on weighted data, seen from outside of the program.

AdamW without memory and with a large epsilon changes each parameter by its gradient. So the files
of the model before and after one step give the gradient. The reference reads the same JSONL by
itself: it writes the chats by string concatenation, takes the ids of tokenised records, and
computes the loss in float64 with PyTorch's cross entropy.
"""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.tiny_model import tiny_tokenizer

RELATIVE_ERROR = 1e-5  # of each parameter; 2.2e-6 was seen
END = "<|end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }}({{ c.function.arguments.x }})</call>"
    "{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def turn(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def part(text: str, **fields: float) -> dict[str, Any]:
    return {"type": "text", "text": text, **fields}


CALL = {"type": "function", "function": {"name": "look", "arguments": {"x": "up"}}}
RECORDS: list[dict[str, Any]] = [
    {
        "messages": [
            turn("system", "Be kind."),
            turn("user", "One and one?", weight=0.5),
            turn("assistant", "Two.", reasoning_content="Count: 1, 2.", weight=2),
        ],
        "weight": 0.5,
    },
    {
        "messages": [
            turn("user", "Weather?"),
            turn("assistant", "I look.", tool_calls=[CALL], weight=1.5),
            turn("tool", "Rain, 9 degrees.", weight=0.7),
            turn("assistant", "It rains.", reasoning_content="So: rain."),
        ]
    },
    {
        "messages": [
            turn("user", [part("Read this: "), part("a long quotation", weight=0.25)]),
            turn("assistant", [part("It", weight=3), part(" says é"), part(" (um)", weight=0)]),
        ],
        "weight": 2.5,
    },
    {
        "messages": [
            turn("user", "Hello"),
            turn("assistant", "A bad answer.", weight=0),
            turn("user", "Again, please, and this time with more care."),
            turn("assistant", "A good answer.", loss_scale=0.4),
            turn("user", [part("And", weight=4), part(" now?")], weight=0.125),
            turn("assistant", "Done."),
        ]
    },
    {"messages": [turn("user", "x"), turn("assistant", "y")], "weight": 0},
    {
        "messages": [
            turn("user", "Remember"),
            turn("assistant", "an earlier answer"),
            turn("user", "and?", train=False),
            turn("assistant", [part("z", weight=0.5), part("zz", weight=2)], weight=0.75),
        ]
    },
    {"messages": [turn("user", "p"), turn("assistant", "q")]},
    {
        "messages": [
            turn("user", "Think long. " * 6),
            turn("assistant", "ok", reasoning_content="la " * 20, train=True),
        ],
        "weight": 0.75,
    },
]
# Tokenised records; every training step uses each of them twice.
TOKEN_RECORDS: list[dict[str, Any]] = [
    {"input_ids": [5, 9, 12, 30, 7, 8], "labels": [-100, -100, -100, 30, 7, 8]},
    {
        "input_ids": [0, 10, 11, 12, 13, 14, 20, 21, 22],
        "labels": [-100, -100, 11, 12, -100, -100, 20, 21, -100],
        "loss_weights": [0, 0.7, 0.5, 2, 0.25, 0, 1, 3, 0.6],
        "attention_mask": [0, 1, 1, 1, 1, 1, 1, 1, 1],
        "weight": 0.5,
    },
    {"input_ids": [4, 40, 41, 42, 43], "loss_weights": [0, 0, 0.3, 1, 2]},
]
PROMPT_LOSS_WEIGHT = 0.3
ROLE_WEIGHTS = {"tool": 0.6, "thinking": 0.8, "template": 0.125, "system": 0.05}


@dataclass(frozen=True)
class Run:
    mode: str
    packing: bool
    num_ranks: int
    data_weights: str

    @property
    def name(self) -> str:
        layout = "packed" if self.packing else "padded"
        return f"{self.mode}-{layout}-{self.num_ranks}-{self.data_weights}"


ALL = [
    Run(*choice)
    for choice in itertools.product(
        ("weights", "nonzero", "completion", "tokens", "examples"),
        (False, True),
        (1, 2),
        ("multiply", "replace"),
    )
]
# Each normalization with each layout, number of ranks and treatment of weights, and all pairs of
# the latter three.
PAIRWISE = [
    Run(mode, packing, num_ranks, data_weights)
    for mode, choices in {
        "weights": ((False, 1, "multiply"), (True, 2, "replace")),
        "nonzero": ((False, 2, "multiply"), (True, 1, "replace")),
        "completion": ((True, 2, "multiply"), (False, 1, "replace")),
        "tokens": ((True, 1, "multiply"), (False, 2, "replace")),
        "examples": ((True, 2, "multiply"), (False, 1, "replace")),
    }.items()
    for packing, num_ranks, data_weights in choices
]

# --- The program under test, as processes


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weighted")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [END]})
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(5)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for name, records in (("chats", RECORDS), ("tokens", TOKEN_RECORDS)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return folder


def trained_gradient(workspace: Path, run: Run) -> dict[str, torch.Tensor]:
    """Return the change of each parameter in one step of a fine-tune, with the opposite sign."""
    settings = {
        "model": {"path": str(workspace / "model")},
        "data": {
            "sources": [
                {"path": str(workspace / "chats.jsonl")},
                {"path": str(workspace / "tokens.jsonl"), "repeat": 2},
            ],
            "heldout_examples": 0,
        },
        "loss": {
            "prompt_loss_weight": PROMPT_LOSS_WEIGHT,
            "role_weights": ROLE_WEIGHTS,
            "normalization": run.mode,
            "data_weights": run.data_weights,
        },
        "optimizer": {
            **{"learning_rate": 1e6, "epsilon": 1e6, "beta1": 0.0, "beta2": 0.0},
            **{"weight_decay": 0.0, "max_grad_norm": 0.0},
        },
        "schedule": {"steps": 1, "kind": "constant", "warmup_ratio": 0.0},
        "batch": {
            **{"global_batch_size": 16, "micro_batch_size": 2, "packing": run.packing},
            "max_tokens": 150 if run.packing else None,
        },
        "deepspeed": {"precision": "float32", "zero_stage": 2 if run.num_ranks == 2 else 0},
    }
    config = workspace / f"{run.name}.yaml"
    config.write_text(json.dumps(settings))
    output = workspace / run.name
    if run.num_ranks == 1:
        command = ["-m", "orchestrator.cli.main", "train", str(config), "-o", str(output)]
    else:
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={run.num_ranks}"]
        trainer = ["trainers", str(config), "--output-dir", str(output)]
        command = ["-m", *launcher, "-m", *trainer]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    before = load_file(workspace / "model" / "model.safetensors")
    after = load_file(output / "model" / "model.safetensors")
    return {name: before[name].double() - after[name].double() for name in before}


# --- The reference, which shares no code with the program

Piece = tuple[str, str, float | None]
"""Text, role, and the weight of the data."""


def pieces_of(turns: list[dict[str, Any]]) -> Iterator[Piece]:
    for index, one in enumerate(turns):
        role, is_last = one["role"], index == len(turns) - 1
        weight = one.get("weight", one.get("loss_scale"))
        parts = one["content"]
        if isinstance(parts, str):
            parts = [part(parts)]
        is_excluded = weight == 0 or one.get("train") is False
        yield f"<|{role}|>", "template", None
        if role != "assistant":
            for one_part in parts:
                factors = [w for w in (weight, one_part.get("weight")) if w is not None]
                of_part = math.prod(factors) if factors else None
                yield one_part["text"], "excluded" if is_excluded else role, of_part
            yield f"{END}\n", "template", None
            continue
        is_chosen = is_last or bool(weight)
        kind = "excluded" if is_excluded else "completion" if is_chosen else "history"
        if one.get("reasoning_content"):
            yield f"<think>{one['reasoning_content']}</think>", "thinking", weight
        for one_part in parts:
            factors = [w for w in (weight, one_part.get("weight")) if w is not None]
            of_part = math.prod(factors) if factors else None
            yield one_part["text"], "excluded" if of_part == 0 else kind, of_part
        for call in one.get("tool_calls", ()):
            function = call["function"]
            yield f"<call>{function['name']}({function['arguments']['x']})</call>", kind, weight
        ends_turn = is_chosen or is_excluded
        yield END, kind if ends_turn else "template", weight if ends_turn else None
        if not is_last:
            yield "\n", "template", None


def token_weight(role: str, given: float | None, data_weights: str) -> float:
    of_role = {
        **dict.fromkeys(("system", "user", "tool", "history", "template"), PROMPT_LOSS_WEIGHT),
        **{"completion": 1.0, "thinking": 1.0, "excluded": 0.0},
        **ROLE_WEIGHTS,
    }[role]
    if role == "excluded" or given is None:
        return of_role
    return given if data_weights == "replace" else given * of_role


def tokens_of(record: dict[str, Any], tokenizer: Any) -> Iterator[tuple[int, str, float | None]]:
    """Yield the id, the role and the weight of the data of each token."""
    if "messages" in record:
        for text, role, given in pieces_of(record["messages"]):
            # One token per byte, so that pieces can be tokenised one by one.
            for id in tokenizer(text, add_special_tokens=False)["input_ids"]:
                yield id, role, given
        return
    for index, id in enumerate(record["input_ids"]):
        if not record.get("attention_mask", {index: 1})[index]:
            continue
        given = record["loss_weights"][index] if "loss_weights" in record else None
        is_prompt = record["labels"][index] == -100 if "labels" in record else given == 0
        yield id, "user" if is_prompt else "completion", given


def reference_gradient(workspace: Path, run: Run) -> dict[str, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(workspace / "model")
    model = AutoModelForCausalLM.from_pretrained(workspace / "model", dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    divisors = dict.fromkeys(("weights", "nonzero", "completion", "tokens", "examples"), 0.0)
    chats = (workspace / "chats.jsonl").read_text().splitlines()
    tokens = (workspace / "tokens.jsonl").read_text().splitlines()
    for line in [*chats, *tokens, *tokens]:
        record = json.loads(line)
        of_example = record.get("weight", 1.0)
        if of_example == 0:
            continue
        found = list(tokens_of(record, tokenizer))
        ids = [id for id, _, _ in found]
        kinds = [role for _, role, _ in found]
        weights = [token_weight(role, given, run.data_weights) for _, role, given in found]
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        counted, kinds = weights[1:], kinds[1:]
        example_loss = (losses * torch.tensor(counted, dtype=torch.float64)).sum()
        divisors["weights"] += of_example * sum(counted)
        divisors["nonzero"] += sum(weight > 0 for weight in counted)
        divisors["completion"] += sum(
            weight > 0 and kind in ("completion", "thinking")
            for weight, kind in zip(counted, kinds, strict=True)
        )
        divisors["tokens"] += len(counted)
        divisors["examples"] += of_example
        if run.mode == "examples":
            example_loss = example_loss / sum(counted)
        total = total + of_example * example_loss
    (total / divisors[run.mode]).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check(workspace: Path, run: Run) -> None:
    found, expected = trained_gradient(workspace, run), reference_gradient(workspace, run)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        error = float((found[name] - gradient).norm() / gradient.norm())
        assert error < RELATIVE_ERROR, name


@pytest.mark.slow
@pytest.mark.parametrize("run", PAIRWISE, ids=lambda run: run.name)
def test_gradient_equals_that_of_the_weights_in_the_data(workspace: Path, run: Run) -> None:
    check(workspace, run)


@pytest.mark.full
@pytest.mark.parametrize("run", [one for one in ALL if one not in PAIRWISE], ids=lambda r: r.name)
def test_gradient_equals_that_of_the_weights_in_every_run(workspace: Path, run: Run) -> None:
    check(workspace, run)
