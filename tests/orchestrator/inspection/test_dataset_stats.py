"""`plw data stats` of several data sets, and of tokenised ones."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from orchestrator.plan.sweep_plan import make_plan
from orchestrator.spec.sweep_spec import load_spec
from tests.orchestrator.plw import plw, plw_json
from tests.tiny_model import save_tiny_model


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A train config with ten texts, used twice, and ten tokenised records, of which half."""
    save_tiny_model(tmp_path / "model")
    texts = [{"prompt": f"Q{i}", "completion": "A"} for i in range(10)]
    tokens = [{"input_ids": [i + 5, 6, 7, 8], "labels": [-100, -100, 7, 8]} for i in range(10)]
    for name, records in (("texts", texts), ("tokens", tokens)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    sources = [
        {"path": str(tmp_path / "texts.jsonl"), "repeat": 2},
        {"path": str(tmp_path / "tokens.jsonl"), "repeat": 0.5},
    ]
    path = tmp_path / "train.yaml"
    content = {
        "model": {"path": str(tmp_path / "model")},
        "data": {"sources": sources, "template": "plain", "heldout_examples": 4},
    }
    with path.open("w") as file:
        YAML().dump(content, file)
    return path


def test_stats_count_examples_as_often_as_they_are_used(spec: Path) -> None:
    stats = plw_json("data", "stats", spec)
    assert stats["num_examples"] == 25
    assert [(one["num_used"], one["num_uses"]) for one in stats["sources"]] == [(10, 20), (5, 5)]
    # Texts have 2 + 2 prompt and 2 completion tokens, the others 2 and 2.
    assert (stats["prompt"]["total"], stats["completion"]["total"]) == (90, 50)
    folder = spec.parent
    lines = plw("data", "stats", spec).output.splitlines()
    assert f"{folder}/texts.jsonl: 10 examples, 20 uses in an epoch" in lines
    assert f"{folder}/tokens.jsonl: 5 examples, 5 uses in an epoch" in lines


def test_stats_name_the_model_of_the_tokenizer(spec: Path) -> None:
    model = str(spec.parent / "model")
    assert plw_json("data", "stats", spec)["model"] == model
    output = "".join(plw("data", "stats", spec).output.split())
    assert f",templateplain,tokenizerof{model}" in output


def test_the_spec_for_tokenised_data_can_be_planned(spec: Path) -> None:
    written = spec.with_name("sweep.yaml")
    plw("data", "stats", spec, "--spec", written)
    evals = load_spec(written).evals
    assert evals.heldout is not None
    assert (evals.heldout_choice, evals.heldout_exact_match, evals.heldout_chrf) == (None,) * 3
    assert len(make_plan(load_spec(written)).plan.trials) > 0
