from pathlib import Path

import pytest
import sacrebleu

from evals.config import (
    EvalConfig,
    HeldoutConfig,
    MemorisationConfig,
)
from evals.engine.loading import LoadedModel
from evals.heldout.memorisation import measure_memorisation
from evals.run import score_model
from tests.evals.reference import no_progress
from trainers.data.examples import Example, pair
from trainers.foundation.errors import InputError

UNSEEN = [
    pair("u:1", prompt="Close a file.", completion="file.close"),
    pair("u:2", prompt="What is the capital of Norway?", completion="Oslo."),
]
CONFIG = MemorisationConfig(examples=4, max_new_tokens=16)
ONLY = EvalConfig(
    heldout=None,
    multiple_choice=None,
    short_generation=None,
    long_generation=None,
    memorisation=CONFIG,
    batch_size=2,
)


def test_what_was_learned_by_heart_is_written_down_and_the_rest_is_not(
    taught: LoadedModel, facts: list[Example]
) -> None:
    measured = measure_memorisation(
        taught, facts, UNSEEN, CONFIG, batch_size=2, seed=0, on_progress=no_progress
    )
    values = {score.name: score.value for score in measured.scores}
    assert list(values) == [
        "training_bleu",
        "training_generation_length",
        "heldout_bleu",
        "heldout_generation_length",
    ]
    assert values["training_bleu"] == pytest.approx(100)
    assert values["heldout_bleu"] < 50
    # By hand: the number of tokens of the four completions, without the end token.
    lengths = [len(taught.template.encode_completion(fact.completion)) - 1 for fact in facts]
    assert values["training_generation_length"] == sum(lengths) / 4
    assert {score.group for score in measured.scores} == {None}
    assert [score.num_items for score in measured.scores] == [4, 4, 2, 2]
    assert measured.signature["bleu"].endswith(f"version:{sacrebleu.__version__}")
    assert [(sample["source"], sample["id"]) for sample in measured.samples] == [
        *(("training", fact.id) for fact in facts),
        ("heldout", "u:1"),
        ("heldout", "u:2"),
    ]
    assert {sample["measure"] for sample in measured.samples} == {"memorisation"}


def test_a_completion_is_compared_as_far_as_the_output_may_reach(
    taught: LoadedModel, facts: list[Example]
) -> None:
    short = MemorisationConfig(examples=4, max_new_tokens=2)
    measured = measure_memorisation(
        taught, facts, UNSEEN, short, batch_size=4, seed=0, on_progress=no_progress
    )
    own = [sample for sample in measured.samples if sample["source"] == "training"]
    assert [sample["output"] for sample in own] == [sample["target"] for sample in own]
    assert measured.scores[0].value == pytest.approx(100)
    assert measured.scores[1].value == 2


def test_progress_counts_both_kinds_of_prompts(taught: LoadedModel, facts: list[Example]) -> None:
    told: list[tuple[int, int]] = []
    measure_memorisation(
        taught, facts, UNSEEN, CONFIG, batch_size=1, seed=0,
        on_progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(done, 6) for done in range(1, 7)]


def test_memorisation_is_off_unless_asked_for() -> None:
    assert EvalConfig().memorisation is None


def _score(path: Path, out_dir: Path, training, config: EvalConfig = ONLY):
    return score_model(
        model_path=path, examples=UNSEEN, template="plain", max_length=128, config=config,
        out_dir=out_dir, training=training,
    )  # fmt: skip


def test_other_training_examples_are_measured_anew(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    first = _score(tiny_path, tmp_path, facts)
    again = _score(tiny_path, tmp_path, facts[:2])
    assert [first.scores[0].num_items, again.scores[0].num_items] == [4, 2]
    hashes = [card.signature["training_items_sha256"] for card in (first, again)]
    assert hashes[0] != hashes[1]


def test_memorisation_without_training_data_is_bad_input(tiny_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"evals\.memorisation needs the examples .*--config"):
        _score(tiny_path, tmp_path, None)


def test_items_that_stand_in_the_training_data_are_counted_with_every_score(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    config = EvalConfig(
        heldout=HeldoutConfig(examples=2),
        multiple_choice=None,
        short_generation=None,
        long_generation=None,
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
    unlooked = _score(tiny_path, tmp_path, None, config.model_copy(update={"memorisation": None}))
    assert {score.num_overlapping for score in unlooked.scores} == {None}
