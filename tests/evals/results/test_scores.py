"""Scores on disk: those of earlier releases are read under their current names."""

import json
from pathlib import Path

from evals.results.paired_samples import read_scored_model
from evals.results.scores import ScoreCard

SCORE = {
    "value": 0.5, "standard_error": None, "ci_low": None, "ci_high": None, "num_items": 2,
    "higher_is_better": True, "unit": "share of items", "interval_method": "none",
}  # fmt: skip
OLD_CARD = {
    "model_path": "m",
    "scores": [
        {"name": "heldout_completion_loss", "group": None, **SCORE},
        {"name": "multiple_choice_accuracy", "group": "multiple_choice", **SCORE},
        {"name": "short_generation_exact_match", "group": "short_generation", **SCORE},
        {"name": "long_generation_chrf", "group": "long_generation", **SCORE},
        {"name": "arc_challenge.acc_norm", "group": "multiple_choice", **SCORE},
    ],
    "signature": {},
    "seconds": 1.0,
}


def test_old_held_out_scores_are_read_under_their_new_names_in_their_own_group() -> None:
    card = ScoreCard.model_validate(OLD_CARD)
    assert [(score.name, score.group) for score in card.scores] == [
        ("heldout_completion_loss", None),
        ("heldout.choice", "heldout"),
        ("heldout.exact_match", "heldout"),
        ("heldout.chrf", "heldout"),
        ("arc_challenge.acc_norm", "multiple_choice"),
    ]


def test_judged_scores_of_our_own_prompts_lose_the_names_of_the_benchmarks() -> None:
    names = ("alpaca_eval_win_rate", "alpaca_eval_length_controlled_win_rate", "pandalm_win_rate")
    scores = [{"name": name, "group": "long_generation", **SCORE} for name in names]
    old = OLD_CARD | {"scores": scores, "signature": {"alpaca_eval": {"style": "ranking"}}}
    assert [score.name for score in ScoreCard.model_validate(old).scores] == [
        "alpaca_eval_prompts_win_rate",
        "alpaca_eval_prompts_length_adjusted_win_rate",
        "pandalm_prompts_win_rate",
    ]
    new = old | {"signature": {"alpaca_eval": {"style": "alpaca_eval"}}}
    assert ScoreCard.model_validate(new).scores[0].name == "alpaca_eval_win_rate"


def test_old_samples_are_read_under_the_new_names(tmp_path: Path) -> None:
    fields = {"id": "1", "prompt": "p", "target": "t", "output": "o", "value": 1.0}
    (tmp_path / "scores.json").write_text(json.dumps(OLD_CARD))
    (tmp_path / "samples.jsonl").write_text(json.dumps({"measure": "multiple_choice", **fields}))
    assert [s["measure"] for s in read_scored_model(tmp_path).samples] == ["heldout.choice"]
