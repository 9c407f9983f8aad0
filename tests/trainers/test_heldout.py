"""The held-out loss during training equals the evaluation's and does not affect training."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evals.engine.loading import load_model
from evals.heldout.loss import evaluate_heldout_loss
from tests.tiny_model import tiny_tokenizer
from tests.trainers.tiny_runs import settings, train_interrupted_and_uninterrupted, train_until
from tests.worlds import run_in_world
from trainers.__main__ import _print_step
from trainers.config import TrainConfig
from trainers.data.examples import pair
from trainers.data.tokenize import encode_heldout, read_split
from trainers.data_config import DataConfig
from trainers.runs.metrics_file import read_losses
from trainers.runs.results import StepMetrics

CASES: dict[str, dict[str, Any]] = {
    "zero-0": {"deepspeed": {"zero_stage": 0, "precision": "float32"}},
    "zero-1": {"deepspeed": {"zero_stage": 1, "precision": "float32"}},
    "zero-2": {"deepspeed": {"zero_stage": 2, "precision": "float32"}},
    "zero-3": {"deepspeed": {"zero_stage": 3, "precision": "float32"}},
    "zero-3-packed": {
        "deepspeed": {"zero_stage": 3, "precision": "float32", "gradient_checkpointing": True},
        "batch": {"global_batch_size": 7, "micro_batch_size": 2, "packing": True},
    },
    "zero-2-bfloat16": {"deepspeed": {"zero_stage": 2, "precision": "bfloat16"}},
    "zero-3-bfloat16": {"deepspeed": {"zero_stage": 3, "precision": "bfloat16"}},
    "zero-2-lora": {"lora": {"rank": 4, "dropout": 0.3}},
    "zero-3-lora": {
        "lora": {"rank": 4, "dropout": 0.3},
        "deepspeed": {"zero_stage": 3, "precision": "float32"},
    },
}
FAST = ("zero-3-packed",)


def with_heldout(folder: Path, case: str, **changes: Any) -> dict[str, Any]:
    """Measure after steps 2, 4 and 6; weights, smoothing and dropout must not affect the loss."""
    return settings(
        folder,
        model={"path": str(folder / "model"), "dropout": 0.2},
        loss={"prompt_loss_weight": 0.0, "label_smoothing": 0.1},
        **{"log_heldout_every_steps": 2, **CASES[case], **changes},
    )


def train_measured_and_not(folder: Path, cases: tuple[str, ...]) -> None:
    for case in cases:
        train_until(
            with_heldout(folder, case, log_heldout_every_steps=None), folder / f"off-{case}"
        )
        train_interrupted_and_uninterrupted(with_heldout(folder, case), folder, case)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one-rank")
    settings(folder)
    run_in_world(1, train_measured_and_not, folder, FAST)
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two-ranks")
    settings(folder)
    run_in_world(2, train_measured_and_not, folder, tuple(CASES))
    return folder


RUNS = [
    *(pytest.param("alone", case, id=f"{case}-one-rank") for case in FAST),
    *(
        pytest.param("together", case, id=f"{case}-two-ranks", marks=pytest.mark.slow)
        for case in CASES
    ),
]


@pytest.fixture
def folder(world: str, request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(world)
    return found


def metrics(output_dir: Path) -> list[dict[str, Any]]:
    lines = (output_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights(output_dir: Path) -> dict[str, bytes]:
    loaded = load_file(output_dir / "model" / "model.safetensors")
    return {name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in loaded.items()}


@pytest.mark.parametrize(("world", "case"), RUNS)
def test_the_last_loss_equals_that_of_the_evaluation(folder: Path, case: str) -> None:
    config = TrainConfig.model_validate(with_heldout(folder, case))
    loaded = load_model(folder / f"whole-{case}" / "model", template="plain", max_length=64)
    measured = evaluate_heldout_loss(
        loaded, read_split(config.data).heldout, batch_size=3, seed=0, on_progress=lambda *_: None
    )
    wanted = {score.name: score.value for score in measured.scores}
    # A bfloat16 model is scored in float32.
    tolerance = 3e-3 if "bfloat16" in case else 1e-5
    last = metrics(folder / f"whole-{case}")[-1]
    assert last["heldout_completion_loss"] == pytest.approx(
        wanted["heldout_completion_loss"], rel=tolerance
    )
    assert last["heldout_prompt_loss"] == pytest.approx(
        wanted["heldout_prompt_loss"], rel=tolerance
    )


@pytest.mark.parametrize(("world", "case"), RUNS)
def test_measuring_does_not_change_the_trained_bits(folder: Path, case: str) -> None:
    assert weights(folder / f"whole-{case}") == weights(folder / f"off-{case}")
    assert weights(folder / f"cut-{case}") == weights(folder / f"off-{case}")


@pytest.mark.parametrize(("world", "case"), RUNS)
def test_a_resumed_run_logs_the_losses_of_an_uninterrupted_run(folder: Path, case: str) -> None:
    keys = ("step", "loss", "grad_norm", "heldout_completion_loss", "heldout_prompt_loss")
    whole, cut, off = (
        [[line[key] for key in keys] for line in metrics(folder / f"{kind}-{case}")]
        for kind in ("whole", "cut", "off")
    )
    assert cut == whole
    assert [line[:3] for line in off] == [line[:3] for line in whole]
    assert [line[3] is not None for line in whole] == [False, True] * 3
    assert all(line[3] is None and line[4] is None for line in off)


@pytest.mark.slow
@pytest.mark.parametrize("case", FAST)
def test_two_ranks_measure_the_same_losses_as_one(alone: Path, together: Path, case: str) -> None:
    one, two = (metrics(folder / f"whole-{case}")[1] for folder in (alone, together))
    # Not the same bits: each rank draws its own dropout.
    for key in ("heldout_completion_loss", "heldout_prompt_loss"):
        assert two[key] == pytest.approx(one[key], rel=0.05)


def random_states(folder: Path) -> None:
    from trainers.sft import train

    states: dict[str, list[bytes]] = {}
    for name, every in (("off", None), ("on", 1)):
        seen = states.setdefault(name, [])

        def remember(seen: list[bytes] = seen) -> None:
            seen.append(torch.get_rng_state().numpy().tobytes())

        config = with_heldout(folder, "zero-2", log_heldout_every_steps=every)
        train(TrainConfig.model_validate(config), folder / name, get_stop_request=remember)
    assert len(states["on"]) == 6
    assert states["on"] == states["off"]


def test_measuring_draws_no_random_numbers(tmp_path: Path) -> None:
    settings(tmp_path)
    run_in_world(1, random_states, tmp_path)


def test_a_measured_step_is_logged_and_the_last_one_is_measured(tmp_path: Path) -> None:
    config = settings(tmp_path, log_every_steps=4, log_heldout_every_steps=3, schedule={"steps": 7})
    run_in_world(1, train_until, config, tmp_path / "run")
    logged = metrics(tmp_path / "run")
    assert [line["step"] for line in logged] == [3, 4, 6, 7]
    assert [line["heldout_completion_loss"] is None for line in logged] == [
        False,
        True,
        False,
        False,
    ]
    assert all(math.isfinite(line["heldout_prompt_loss"] or 0) for line in logged)


@pytest.mark.parametrize(
    ("loss", "printed"),
    [
        (
            1.25,
            "step 2/4  completion loss 1.500  prompt loss -  held-out completion loss 1.250"
            "  100 tokens/s\n",
        ),
        (None, "step 2/4  completion loss 1.500  prompt loss -  100 tokens/s\n"),
    ],
)
def test_the_progress_shows_a_measured_held_out_loss(
    loss: float | None, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _print_step(
        StepMetrics(
            step=2, total_steps=4, time=0.0, loss=1.5, completion_loss=1.5, prompt_loss=None,
            learning_rate=1e-4, grad_norm=1.0, num_tokens=100, tokens_per_second=100.0,
            heldout_completion_loss=loss,
        )
    )  # fmt: skip
    assert capsys.readouterr().out == printed


def test_lines_of_measured_steps_do_not_change_the_compared_losses(tmp_path: Path) -> None:
    lines = [{"step": step, "total_steps": 11, "loss": float(step)} for step in (3, 4, 6, 8, 9, 11)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_losses(path, 4) == [4.0, 8.0, 11.0]


def test_the_first_64_examples_are_measured_and_long_ones_are_truncated() -> None:
    examples = [pair(f"e:{i}", prompt="long " * 20, completion=str(i)) for i in range(70)]
    data = DataConfig(path="data.jsonl", template="plain", max_length=16, too_long="error")
    encoded = encode_heldout(examples, data, tiny_tokenizer())
    assert [example.id for example in encoded] == [f"e:{i}" for i in range(64)]
    assert {len(example.input_ids) for example in encoded} == {16}
