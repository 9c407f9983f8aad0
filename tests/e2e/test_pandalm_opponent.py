"""A sweep whose models are compared with the outputs of its trial with PLW 0, by a fake judge."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.plw import Workspace, edit_spec, make_workspace
from tests.evals.judge_endpoint import Endpoint, serving

pytestmark = pytest.mark.slow

NAME = "pandalm_prompts_win_rate"
OFF = {"heldout_choice": None, "heldout_exact_match": None, "heldout_chrf": None}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint()) as found:
        yield found


def score(folder: Path) -> tuple[float, Any, list[Any]]:
    """Return win rate, signature and samples of a model's pairs."""
    card = json.loads((folder / "scores.json").read_text())
    [value] = [s["value"] for s in card["scores"] if s["name"] == NAME]
    lines = (folder / "samples.jsonl").read_text().splitlines()
    samples = [s for s in map(json.loads, lines) if s["measure"] == "pandalm_prompts"]
    return value, card["signature"]["pandalm_prompts"], samples


def expected_win_rate(candidates: list[str], references: list[str]) -> float:
    """Return the win rate of `candidates` for a judge that prefers longer outputs."""
    pairs = list(zip(candidates, references, strict=True))
    return sum((len(a) > len(b)) + 0.5 * (len(a) == len(b)) for a, b in pairs) / len(pairs)


def trial_of(workspace: Workspace, weight: float) -> Path:
    [found] = [
        t for t in workspace.trials() if t["settings"]["loss"]["prompt_loss_weight"] == weight
    ]
    return workspace.sweep / "trials" / str(found["id"])


def test_models_meet_the_trial_with_plw_0_although_it_starts_last(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    workspace = make_workspace(
        tmp_path,
        search={"space": {"loss.prompt_loss_weight": [0.1, 1, 0]}},
        resources={"workers_per_trial": 1, "cpus_per_worker": 1},
        schedule={"steps": 20},
        evals={
            **OFF,
            "pandalm_prompts": {"prompts": "prompts.json", "max_new_tokens": 24},
            "judge": {
                "base_url": endpoint.base_url,
                "model": "fake",
                "api_key_env": None,
                "cache_dir": str(tmp_path / "replies"),
            },
        },
    )
    prompts = [{"instruction": f"Write about the number {n}.", "input": ""} for n in range(12)]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    done = workspace.plw("sweep", "sweep.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    plw_0 = trial_of(workspace, 0)
    outputs = json.loads((plw_0 / "outputs" / "pandalm_prompts.alpaca_eval.json").read_text())
    texts = [record["output"] for record in outputs]
    assert len(texts) == 12
    assert score(plw_0)[0] == 0.5
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    [base] = (workspace.sweep / "bases").iterdir()
    for folder in (trial_of(workspace, 0.1), trial_of(workspace, 1), base):
        value, signature, samples = score(folder)
        assert signature["opponent"] == "plw_0"
        assert signature["references_sha256"] == digest
        assert [sample["target"] for sample in samples] == texts
        assert value == pytest.approx(expected_win_rate([s["output"] for s in samples], texts))
    assert [trial["state"] for trial in workspace.trials()] == ["done"] * 3
    # Nothing is judged or trained again.
    num_requests = len(endpoint.requests)
    again = workspace.plw("sweep", "sweep.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(endpoint.requests) == num_requests
    # Without that trial, the sweep is rejected.
    edit_spec(workspace, search={"space": {"loss.prompt_loss_weight": [0.1, 1]}})
    refused = workspace.plw("plan", "sweep.yaml")
    assert refused.returncode == 2
    assert "add 0 to search.space.loss.prompt_loss_weight" in refused.stderr
