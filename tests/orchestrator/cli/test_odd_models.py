"""`plw eval` on checkpoints that emit NaN, never stop, or answer nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoModelForCausalLM

from orchestrator.cli.main import main
from tests.evals.benchmark_files import write_lines
from tests.evals.judge_endpoint import Endpoint, serving
from tests.tiny_model import save_tiny_model

EOS = 1
NUM_ITEMS, MAX_NEW_TOKENS = 3, 6


def save_model(folder: Path, change: Callable[[Any], None]) -> Path:
    """Write a model whose hidden state is the same vector everywhere, with `change` applied."""
    save_tiny_model(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        # The same direction with lengths below 1, which the last normalisation removes.
        rows = model.model.embed_tokens.weight
        rows.copy_(torch.linspace(0.1, 0.2, len(rows)).unsqueeze(1).expand_as(rows))
        change(model)
    model.save_pretrained(folder)
    return folder


def emit_nan(model: Any) -> None:
    model.model.norm.weight.fill_(float("nan"))


def never_stop(model: Any) -> None:
    model.model.embed_tokens.weight[EOS] = -1


def stop_at_once(model: Any) -> None:
    model.model.embed_tokens.weight[EOS] = 1


def evaluate(model: Path, endpoint: Endpoint, **evals: object) -> Result:
    """Run `plw eval` on held-out examples and judged prompts of the same texts."""
    folder = model.parent
    data = [{"instruction": f"Count to {n}.", "output": "one two three"} for n in range(NUM_ITEMS)]
    write_lines(folder / "data.jsonl", data)
    generation = {"examples": NUM_ITEMS, "max_new_tokens": MAX_NEW_TOKENS}
    config = {
        "heldout_choice": None, "heldout_exact_match": generation,
        "heldout_chrf": generation,
        "judged": [
            {"name": "counting", "path": str(folder / "data.jsonl"),
             "max_new_tokens": MAX_NEW_TOKENS}
        ],
        "judge": {"base_url": endpoint.base_url, "model": "m", "api_key_env": None,
                  "cache_dir": str(folder / "replies")},
    } | evals  # fmt: skip
    (folder / "evals.yaml").write_text(json.dumps({"evals": config}))
    arguments = ["eval", model, "--data", folder / "data.jsonl", "--template", "plain",
                 "--config", folder / "evals.yaml", "-o", folder / "out", "--json"]  # fmt: skip
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


def values_of(result: Result) -> dict[str, float]:
    assert result.exit_code == 0, result.output
    card = json.loads(result.stdout)
    return {score["name"]: score["value"] for score in (*card["scores"], *card["secondary"])}


@pytest.mark.parametrize("heldout", [{"examples": 2}, None])
def test_a_model_that_emits_nan_has_diverged(
    tmp_path: Path, heldout: dict[str, int] | None
) -> None:
    model = save_model(tmp_path / "model", emit_nan)
    with serving(Endpoint()) as endpoint:
        result = evaluate(model, endpoint, heldout=heldout)
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("failed: ")
    assert "log-probabilities are not finite" in line
    assert not (tmp_path / "out" / "scores.json").exists()
    assert not endpoint.requests


def test_a_model_that_never_stops_is_cut_and_counted(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", never_stop)
    with serving(Endpoint()) as endpoint:
        values = values_of(evaluate(model, endpoint))
    assert values["counting_truncated"] == 1
    assert values["heldout.exact_match"] == 0
    lines = (tmp_path / "out" / "samples.jsonl").read_text().splitlines()
    generated = [s for s in map(json.loads, lines) if s["measure"] != "heldout"]
    assert {(s["num_new_tokens"], s["stopped"]) for s in generated} == {(MAX_NEW_TOKENS, False)}


def test_a_model_that_answers_nothing_gets_scores(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", stop_at_once)
    with serving(Endpoint()) as endpoint:
        values = values_of(evaluate(model, endpoint))
    # The fake judge prefers the longer output.
    assert (values["counting_win_rate"], values["counting_truncated"]) == (0, 0)
    assert (values["heldout.exact_match"], values["heldout.chrf"]) == (0, 0)
    written = json.loads((tmp_path / "out" / "outputs" / "counting.alpaca_eval.json").read_text())
    assert [row["output"] for row in written] == [""] * NUM_ITEMS
