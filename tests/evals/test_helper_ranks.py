"""Two ranks score a model together: the same files as one rank, and errors of either."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from transformers import LlamaModel

from evals.config import EvalConfig
from evals.engine.helper_ranks import help_rank_0, helper_ranks, split_evenly
from evals.run import help_scoring, score_model
from tests.evals.benchmark_files import write_data_root
from tests.worlds import run_in_world
from trainers.data.examples import pair
from trainers.foundation.errors import InputError, Problem, TrainingError

# Every process imports torch, transformers and lm-eval.
pytestmark = pytest.mark.slow


@contextmanager
def count_forward_passes(path: Path) -> Iterator[None]:
    """Write the number of forward passes of this process in the block to `path`."""
    count, forward = 0, LlamaModel.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return forward(self, *args, **kwargs)

    LlamaModel.forward = counted
    try:
        yield
    finally:
        LlamaModel.forward = forward
        path.write_text(str(count))


def score_on_all_ranks(model: Path, out_dir: Path, evals: dict[str, Any]) -> None:
    """Score a model, with all ranks of the world; each writes its number of forward passes."""
    common: dict[str, Any] = {
        "model_path": model,
        "template": "plain",
        "max_length": 128,
        "config": EvalConfig.model_validate(evals),
        "num_threads": 1,
    }
    rank = dist.get_rank()
    with count_forward_passes(out_dir / f"passes-{rank}.txt"):
        if rank != 0:
            help_scoring(**common)
            return
        examples = [
            pair(id=str(n), prompt=f"Say {n}.", completion=f"It is {n}." * (n % 3 + 1))
            for n in range(12)
        ]
        try:
            with helper_ranks() as helpers:
                score_model(**common, helpers=helpers, examples=examples, out_dir=out_dir)
        except TrainingError as error:
            (out_dir / "error.json").write_text(json.dumps([str(error), error.kind]))


def passes(out_dir: Path, rank: int) -> int:
    return int((out_dir / f"passes-{rank}.txt").read_text())


@pytest.mark.parametrize("engine", ["padded", "continuous"])
def test_two_ranks_write_the_files_of_one(tiny_path: Path, tmp_path: Path, engine: str) -> None:
    evals = {
        "heldout": {"examples": 12},
        "heldout_choice": {"examples": 12},
        "heldout_exact_match": {"examples": 12, "max_new_tokens": 8},
        "heldout_chrf": None,
        "tasks": ["arc_challenge", "winogrande", "wmt14-en-fr"],
        "data_root": str(write_data_root(tmp_path / "data")),
        "batch_size": 3,
        "engine": engine,
    }
    for size in (1, 2):
        (tmp_path / str(size)).mkdir()
        run_in_world(size, score_on_all_ranks, tiny_path, tmp_path / str(size), evals)
    alone, together = tmp_path / "1", tmp_path / "2"
    assert (alone / "samples.jsonl").read_bytes() == (together / "samples.jsonl").read_bytes()
    cards = [json.loads((f / "scores.json").read_text()) for f in (alone, together)]
    for name in ("scores", "secondary", "signature"):
        assert cards[0][name] == cards[1][name]
    assert passes(together, 0) < passes(alone, 0)
    assert passes(together, 1) > passes(alone, 0) / 4


def test_a_model_that_has_diverged_ends_both_ranks(tiny_path: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_path, model)
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    evals = {
        **dict.fromkeys(("heldout", "heldout_exact_match", "heldout_chrf")),
        "heldout_choice": {"examples": 12},
        "batch_size": 2,
    }
    run_in_world(2, score_on_all_ranks, model, tmp_path, evals)
    message, kind = json.loads((tmp_path / "error.json").read_text())
    assert "log-probabilities are not finite" in message
    assert kind == "divergence"


def run_shares(folder: Path) -> None:
    """Square numbers on all ranks; the helper rejects 13."""

    def square(numbers: list[int]) -> list[int]:
        if 13 in numbers:
            raise InputError(Problem(message="13 is not allowed"))
        return [n * n for n in numbers]

    if dist.get_rank() != 0:
        help_rank_0(lambda: {"square": square})
        (folder / "helper-ended").touch()
        return
    found: list[Any] = []
    with helper_ranks() as helpers:
        assert helpers is not None
        own: list[int] = []
        found.append(helpers.run("square", split_evenly([1, 2, 3, 4, 5], 2), own.extend))
        found.append([*own])
        try:
            helpers.run("square", [[1], [13]], own.extend)
        except InputError as error:
            found.append(str(error))
        try:
            helpers.run("square", [["a"], [3]], lambda share: {}[share[0]])
        except KeyError:
            found.append("own error")
        found.append(helpers.run("square", [[], [7]], own.extend))
    (folder / "found.json").write_text(json.dumps(found))


def test_an_error_of_either_rank_is_raised_and_the_next_work_is_done(tmp_path: Path) -> None:
    run_in_world(2, run_shares, tmp_path)
    assert json.loads((tmp_path / "found.json").read_text()) == [
        [[4, 16]],
        [1, 3, 5],
        "13 is not allowed",
        "own error",
        [[49]],
    ]
    assert (tmp_path / "helper-ended").exists()
