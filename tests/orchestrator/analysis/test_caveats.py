"""What a reader of the report must know beside the answer."""

from pathlib import Path

from tests.orchestrator.report_page import page_of
from tests.orchestrator.sweeps import (
    OTHER_BASE,
    base_record,
    trial,
    write_sweep,
    write_two_models,
)


def caveats_with(folder: Path, **counts: int) -> str:
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
    return page_of(sweep).ids["caveats"]


def test_much_data_that_was_cut_is_a_caveat(tmp_path: Path) -> None:
    caveats = caveats_with(tmp_path, num_truncated_examples=51, num_truncated_tokens=12345)
    assert (
        "5% of the training examples (51 of 1,000) were cut to 512 tokens, which lost 12,345 "
        "tokens: R_g and all findings are those of the cut data."
    ) in caveats


def test_little_data_that_was_cut_is_none(tmp_path: Path) -> None:
    caveats = caveats_with(tmp_path, num_truncated_examples=50, num_truncated_tokens=12345)
    assert "512 tokens" not in caveats


def test_cut_completions_and_dropped_examples_are_always_told(tmp_path: Path) -> None:
    caveats = caveats_with(
        tmp_path,
        num_truncated_examples=1,
        num_cut_completions=1,
        num_dropped_examples=1,
        num_dropped_tokens=700,
    )
    assert (
        "1 training example lost the end of the completion with its end-of-sequence token: "
        "nothing there teaches where to stop."
    ) in caveats
    assert (
        "1 training example of 1,001 had more than 512 tokens and was dropped, with 700 tokens."
    ) in caveats


def test_an_untuned_model_without_scores_is_a_caveat(tmp_path: Path) -> None:
    folder = write_two_models(tmp_path / "s")
    (folder.base(OTHER_BASE) / "scores.json").unlink()
    assert "Not every untuned model was scored" in page_of(folder).ids["caveats"]


def test_data_sets_are_told_apart_in_the_caveats(tmp_path: Path) -> None:
    bases = [
        base_record(data="/d/short.jsonl", stats={"generation_ratio": {"of_means": 0.2}}),
        base_record(
            OTHER_BASE,
            data="/d/long.jsonl",
            stats={"generation_ratio": {"of_means": 3.5}, "num_cut_completions": 2},
        ),
    ]
    caveats = page_of(write_sweep(tmp_path / "s", [trial(0.1)], {}, bases=bases)).ids["caveats"]
    assert "is 0.2 for data short.jsonl, 3.5 for data long.jsonl; the best PLW" in caveats
    assert "data long.jsonl: 2 training examples lost the end of the completion" in caveats
    assert caveats.count("Model: dequantised") == 1
