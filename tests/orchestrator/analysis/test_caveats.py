"""Caveats of the report."""

from pathlib import Path

from tests.orchestrator.report_page import read_page
from tests.orchestrator.sweeps import (
    OTHER_BASE,
    base_record,
    sweep_record,
    trial,
    write_sweep,
    write_two_models,
)


def get_caveats(folder: Path, **counts: int) -> str:
    stats = {
        "num_examples": 1000,
        "max_length": 512,
        "num_truncated_examples": 0,
        "num_truncated_tokens": 0,
        "num_cut_completions": 0,
        "num_dropped_examples": 0,
        "num_dropped_tokens": 0,
    }
    sweep = write_sweep(folder / "s", [trial(0.1)], {}, bases=[base_record(stats=stats | counts)])
    return read_page(sweep).ids["caveats"]


def test_many_truncated_examples_are_a_caveat(tmp_path: Path) -> None:
    caveats = get_caveats(tmp_path, num_truncated_examples=51, num_truncated_tokens=12345)
    assert (
        "5% of the training examples (51 of 1,000) were truncated to 512 tokens (12,345 tokens "
        "lost). R_g and all findings describe the truncated data."
    ) in caveats


def test_few_truncated_examples_are_no_caveat(tmp_path: Path) -> None:
    caveats = get_caveats(tmp_path, num_truncated_examples=50, num_truncated_tokens=12345)
    assert "512 tokens" not in caveats


def test_truncated_completions_and_dropped_examples_are_caveats(tmp_path: Path) -> None:
    caveats = get_caveats(
        tmp_path,
        num_truncated_examples=1,
        num_cut_completions=1,
        num_dropped_examples=1,
        num_dropped_tokens=700,
    )
    assert (
        "1 training example lost the end of the completion with its end-of-sequence token and does "
        "not teach the model where to stop."
    ) in caveats
    assert ("1 training example of 1,001 had more than 512 tokens and was dropped.") in caveats


def test_missing_untuned_scores_are_a_caveat(tmp_path: Path) -> None:
    folder = write_two_models(tmp_path / "s")
    (folder.baseline(OTHER_BASE) / "scores.json").unlink()
    assert "Not every untuned model was scored" in read_page(folder).ids["caveats"]


def test_caveats_name_the_data_set(tmp_path: Path) -> None:
    bases = [
        base_record(data="/d/short.jsonl", stats={"generation_ratio": {"of_means": 0.2}}),
        base_record(
            OTHER_BASE,
            data="/d/long.jsonl",
            stats={"generation_ratio": {"of_means": 3.5}, "num_cut_completions": 2},
        ),
    ]
    caveats = read_page(write_sweep(tmp_path / "s", [trial(0.1)], {}, bases=bases)).ids["caveats"]
    assert "is 0.2 for data short.jsonl, 3.5 for data long.jsonl; the best PLW" in caveats
    assert "data long.jsonl: 2 training examples lost the end of the completion" in caveats
    assert caveats.count("Model: dequantised") == 1


def test_the_heldout_loss_of_chosen_steps_is_a_caveat(tmp_path: Path) -> None:
    spec = {**sweep_record([]).spec, "export_best_every_steps": 10}
    chosen = write_sweep(tmp_path / "a", [trial(0.1)], {}, spec=spec)
    assert "lowest held-out completion loss during training" in read_page(chosen).ids["caveats"]
    last = write_sweep(tmp_path / "b", [trial(0.1)], {})
    assert "lowest held-out" not in read_page(last).ids["caveats"]
