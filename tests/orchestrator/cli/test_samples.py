"""`plw samples`: logs for Inspect's viewer. inspect-ai 0.3.285 reads logs like these."""

import json
from pathlib import Path

from click.testing import CliRunner

from orchestrator.cli.main import main
from tests.orchestrator.cli.test_bad_input import refused
from tests.orchestrator.cli.test_compare import loss, quiz, write_scores


def test_each_measure_becomes_a_log_with_prompts_outputs_and_scores(tmp_path: Path) -> None:
    samples = [quiz("quiz", 0, 1.0), quiz("quiz", 1, 0.0, "no"), loss(0, 2.0, 1)]
    samples.append({**quiz("quiz", 2, 0.0), "value": None})
    scores, out = write_scores(tmp_path / "scores", samples), tmp_path / "logs"
    for _ in range(2):
        result = CliRunner().invoke(main, ["samples", str(scores), "-o", str(out)])
        assert result.exit_code == 0, result.output
    quiz_log, loss_log = sorted(out.iterdir(), key=lambda path: "heldout" in path.name)
    content = json.loads(quiz_log.read_text())
    assert content["eval"]["task"] == "quiz"
    [score] = content["results"]["scores"]
    assert score["metrics"] == {"quiz.acc": {"name": "quiz.acc", "value": 0}}
    second = content["samples"][1]
    assert (second["id"], second["input"], second["target"]) == ("1", "Question 1?", "yes")
    assert second["output"]["choices"][0]["message"]["content"] == "no"
    assert second["scores"] == {"quiz": {"value": 0.0, "answer": "no"}}
    assert second["metadata"]["category"] == "odd"
    assert content["samples"][2]["scores"] == {}
    names = json.loads(loss_log.read_text())["results"]["scores"][0]["metrics"].keys()
    assert names == {"heldout_completion_loss", "heldout_prompt_loss"}


def test_a_folder_without_scores_is_rejected(tmp_path: Path) -> None:
    output = refused("samples", str(tmp_path), "-o", str(tmp_path / "logs"))
    assert "there are no scores: no scores.json and no samples.jsonl" in output
    assert not (tmp_path / "logs").exists()
