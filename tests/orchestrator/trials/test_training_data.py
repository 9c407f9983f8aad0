"""Scoring with access to the training examples of a trial."""

import json
from pathlib import Path
from typing import Any

import pytest

from evals.heldout.examples import load_examples, write_examples
from orchestrator.cli.eval_model import evaluate_model
from orchestrator.record.folder import SweepFolder
from orchestrator.trials.run_trial import score
from tests.orchestrator.plan.test_sources import write_spec
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data
from trainers.config import TrainConfig
from trainers.data.tokenize import read_split
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError

EVALS: dict[str, Any] = {
    "heldout": {"examples": 4},
    "heldout_choice": None,
    "heldout_exact_match": None,
    "heldout_chrf": None,
}
MEMORISATION = {"examples": 3, "max_new_tokens": 4}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """A sweep's folder with a baseline of four held-out examples, its model and its data."""
    save_tiny_model(tmp_path / "small")
    write_data(tmp_path / "sums.jsonl", 24)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = SweepFolder(tmp_path / "sweep")
    write_examples(folder.heldout("b"), read_split(data_config(tmp_path)).heldout)
    return folder


def data_config(root: Path, **changes: Any) -> DataConfig:
    settings = {"path": str(root / "sums.jsonl"), "template": "plain", "max_length": 64,
                "heldout_examples": 4, **changes}  # fmt: skip
    return DataConfig.model_validate(settings)


def score_model_in(folder: SweepFolder, evals: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Score a trial that has the untuned model; return its samples and scores."""
    root = folder.root.parent
    settings = TrainConfig.model_validate(
        {
            "model": {"path": str(root / "small")},
            "data": data_config(root, **changes).model_dump(),
            "schedule": {"steps": 1},
        }
    ).model_dump(mode="json")
    score(folder.root, "trial", "t", "b", str(root / "small"), settings, EVALS | evals, 1)
    card = folder.read_scores("t")
    assert card is not None
    lines = (folder.trial("t") / "samples.jsonl").read_text().splitlines()
    return {"scores": card.by_name(), "samples": [json.loads(line) for line in lines]}


def test_memorisation_uses_the_training_examples_of_the_trial(folder: SweepFolder) -> None:
    found = score_model_in(folder, {"memorisation": MEMORISATION}, train_examples=5)
    own = [s["id"] for s in found["samples"] if s.get("source") == "training"]
    trained = [example.id for example in read_split(data_config(folder.root.parent)).train[:5]]
    assert len(own) == 3
    assert set(own) <= set(trained)
    assert found["scores"]["training_generation_length"].num_items == 3


def test_overlap_is_checked_against_the_training_examples_of_the_trial(folder: SweepFolder) -> None:
    assert score_model_in(folder, {})["scores"]["heldout_completion_loss"].num_overlapping == 0
    path = folder.heldout("b")
    heldout = load_examples(path)
    trained = read_split(data_config(folder.root.parent)).train[0]
    write_examples(path, [*heldout[:3], trained])
    found = score_model_in(folder, {})
    assert found["scores"]["heldout_completion_loss"].num_overlapping == 1
    assert [s["id"] for s in found["samples"] if s["overlaps_training"]] == [trained.id]


def test_trial_with_missing_data_is_scored_without_overlap(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.root.parent / "sums.jsonl").unlink()
    found = score_model_in(folder, {})
    assert found["scores"]["heldout_completion_loss"].num_overlapping is None
    assert "overlap with the training data was not checked" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"sums\.jsonl"):
        score_model_in(folder, {"memorisation": MEMORISATION})


def test_plw_eval_reads_the_training_data_of_a_spec(folder: SweepFolder) -> None:
    root = folder.root.parent
    spec = write_spec(
        root, {"loss.prompt_loss_weight": [0]}, evals=EVALS | {"memorisation": MEMORISATION}
    )
    arguments: dict[str, Any] = {
        "tasks": [], "settings": {}, "template": None, "max_length": None,
    }  # fmt: skip
    card = evaluate_model(
        str(root / "small"), None, spec_path=spec, output_dir=root / "out", **arguments
    )
    assert card.by_name()["training_bleu"].num_items == 3
    assert card.by_name()["heldout_completion_loss"].num_overlapping == 0
    with pytest.raises(InputError, match="--config without --data"):
        evaluate_model(
            str(root / "small"), "sums.jsonl", spec_path=spec, output_dir=root / "o", **arguments
        )
