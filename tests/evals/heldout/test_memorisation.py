"""Memorisation and overlap with the training data."""

from pathlib import Path

import pytest
import sacrebleu

from evals.config import (
    EvalConfig,
    HeldoutConfig,
    MemorisationConfig,
)
from evals.engine.batching import ignore_progress
from evals.engine.loaded_model import LoadedModel
from evals.heldout.memorisation import evaluate_memorisation
from evals.run import score_model
from trainers.data.examples import Example, pair
from trainers.foundation.errors import InputError

UNSEEN = [
    pair("u:1", prompt="Close a file.", completion="file.close"),
    pair("u:2", prompt="What is the capital of Norway?", completion="Oslo."),
]
CONFIG = MemorisationConfig(examples=4, max_new_tokens=16)
ONLY = EvalConfig(
    heldout=None,
    heldout_choice=None,
    heldout_exact_match=None,
    heldout_chrf=None,
    memorisation=CONFIG,
    batch_size=2,
)


def test_a_memorised_completion_is_reproduced_and_an_unseen_one_is_not(
    taught: LoadedModel, facts: list[Example]
) -> None:
    result = evaluate_memorisation(
        taught, facts, UNSEEN, CONFIG, batch_size=2, seed=0, on_progress=ignore_progress
    )
    values = {score.name: score.value for score in result.scores}
    assert list(values) == [
        "training_bleu",
        "training_generation_length",
        "heldout_bleu",
        "heldout_generation_length",
    ]
    assert values["training_bleu"] == pytest.approx(100)
    assert values["heldout_bleu"] < 50
    # The number of tokens of the four completions, without the end token.
    lengths = [len(taught.template.encode_completion(fact.completion)) - 1 for fact in facts]
    assert values["training_generation_length"] == sum(lengths) / 4
    assert {score.group for score in result.scores} == {None}
    assert [score.num_items for score in result.scores] == [4, 4, 2, 2]
    assert result.signature["bleu"].endswith(f"version:{sacrebleu.__version__}")
    assert [(sample["source"], sample["id"]) for sample in result.samples] == [
        *(("training", fact.id) for fact in facts),
        ("heldout", "u:1"),
        ("heldout", "u:2"),
    ]
    assert {sample["measure"] for sample in result.samples} == {"memorisation"}


def test_completions_are_cut_to_the_maximum_output_length(
    taught: LoadedModel, facts: list[Example]
) -> None:
    short = MemorisationConfig(examples=4, max_new_tokens=2)
    result = evaluate_memorisation(
        taught, facts, UNSEEN, short, batch_size=4, seed=0, on_progress=ignore_progress
    )
    training_samples = [sample for sample in result.samples if sample["source"] == "training"]
    assert [sample["output"] for sample in training_samples] == [
        sample["target"] for sample in training_samples
    ]
    assert result.scores[0].value == pytest.approx(100)
    assert result.scores[1].value == 2


def test_progress_counts_training_and_held_out_prompts(
    taught: LoadedModel, facts: list[Example]
) -> None:
    reports: list[tuple[int, int]] = []
    evaluate_memorisation(
        taught, facts, UNSEEN, CONFIG, batch_size=1, seed=0,
        on_progress=lambda done, total: reports.append((done, total)),
    )  # fmt: skip
    assert reports == [(done, 6) for done in range(1, 7)]


def test_memorisation_is_off_by_default() -> None:
    assert EvalConfig().memorisation is None


def _score(path: Path, out_dir: Path, training, config: EvalConfig = ONLY):
    return score_model(
        model_path=path, examples=UNSEEN, template="plain", max_length=128, config=config,
        out_dir=out_dir, training=training,
    )  # fmt: skip


def test_different_training_examples_are_evaluated_again(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    first = _score(tiny_path, tmp_path, facts)
    again = _score(tiny_path, tmp_path, facts[:2])
    assert [first.scores[0].num_items, again.scores[0].num_items] == [4, 2]
    hashes = [card.signature["training_items_sha256"] for card in (first, again)]
    assert hashes[0] != hashes[1]


def test_memorisation_without_training_data_is_an_error(tiny_path: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"evals\.memorisation needs the training examples .*--config"
    ):
        _score(tiny_path, tmp_path, None)


def test_every_score_counts_the_items_that_occur_in_the_training_data(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    config = EvalConfig(
        heldout=HeldoutConfig(examples=2),
        heldout_choice=None,
        heldout_exact_match=None,
        heldout_chrf=None,
        memorisation=CONFIG,
    )
    near = pair("t:9", prompt="CLOSE a file", completion="file.close()")
    card = _score(tiny_path, tmp_path, [*facts, near], config)
    counts = {score.name: score.num_overlapping for score in card.scores}
    assert counts["heldout_completion_loss"] == 1
    assert counts["heldout_prompt_bits_per_byte"] == 1
    assert counts["training_bleu"] is None
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert '"overlaps_training": true' in lines[0]
    assert '"overlaps_training": false' in lines[1]
    unchecked = _score(tiny_path, tmp_path, None, config.model_copy(update={"memorisation": None}))
    assert {score.num_overlapping for score in unchecked.scores} == {None}
