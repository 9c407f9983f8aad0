"""Saved results: reuse, identity and the files."""

import json
import shutil
from pathlib import Path

import pytest

from evals.config import DistractorChoiceConfig, EvalConfig, GenerationConfig, HeldoutConfig
from evals.engine.batching import ProgressCallback, ignore_progress
from evals.results.evaluation import Evaluation, EvaluationResult
from evals.results.intervals import mean
from evals.results.result_store import ResultStore, safe_file_name
from evals.results.scores import ScoreCard
from evals.run import score_model
from trainers.data.examples import Example
from trainers.foundation.errors import TrainingError
from trainers.foundation.files import read_json

CONFIG = EvalConfig(
    heldout=HeldoutConfig(examples=4),
    heldout_choice=DistractorChoiceConfig(examples=3, choices=3),
    heldout_exact_match=GenerationConfig(examples=4, max_new_tokens=4),
    heldout_chrf=GenerationConfig(examples=2, max_new_tokens=8, invert=True),
    batch_size=2,
)
NAMES = ["heldout", "heldout.choice", "heldout.exact_match", "heldout.chrf"]


class Killed(BaseException):
    """Ends the run like a signal: no error handler catches it."""


class Listener:
    """Records which evaluations were started and which reused; may kill the run within one."""

    def __init__(self, kill_in: str | None = None) -> None:
        self.started: list[str] = []
        self.reused: list[str] = []
        self._kill_in = kill_in

    def on_progress(self, name: str, done: int, total: int) -> None:
        if done == 0:
            self.started.append(name)
        elif name == self._kill_in:
            raise Killed

    def on_reused(self, names: list[str]) -> None:
        self.reused += names


def _score(path: Path, facts: list[Example], out_dir: Path, listener: Listener, **changes):
    arguments = {
        "model_path": path,
        "examples": facts,
        "template": "plain",
        "max_length": 128,
        "config": CONFIG,
        "out_dir": out_dir,
        "on_progress": listener.on_progress,
        "on_reused": listener.on_reused,
    }
    return score_model(**(arguments | changes))


def test_a_killed_run_resumes_with_the_missing_evaluations_and_the_same_scores(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    whole = _score(tiny_path, facts, tmp_path / "whole", Listener())
    with pytest.raises(Killed):
        _score(tiny_path, facts, tmp_path / "killed", Listener(kill_in="heldout.exact_match"))
    assert not (tmp_path / "killed/scores.json").exists()
    again = Listener()
    resumed = _score(tiny_path, facts, tmp_path / "killed", again)
    assert again.reused == ["heldout", "heldout.choice"]
    assert again.started == ["heldout.exact_match", "heldout.chrf"]
    assert resumed.scores == whole.scores
    assert resumed.signature == whole.signature
    assert (tmp_path / "killed/samples.jsonl").read_text() == (
        tmp_path / "whole/samples.jsonl"
    ).read_text()


def test_a_scored_model_is_not_scored_again(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    first = _score(tiny_path, facts, tmp_path, Listener())
    listener = Listener()
    second = _score(tiny_path, facts, tmp_path, listener)
    assert (listener.started, listener.reused) == ([], NAMES)
    assert second.scores == first.scores
    assert second.seconds > first.seconds * 0.5
    assert ScoreCard.model_validate(read_json(tmp_path / "scores.json")) == second


@pytest.mark.parametrize(
    ("changes", "reused"),
    [
        (
            {"config": CONFIG.model_copy(update={"heldout": HeldoutConfig(examples=3)})},
            NAMES[1:],
        ),
        ({"config": CONFIG.model_copy(update={"seed": 1})}, []),
        ({"template": "alpaca"}, []),
        ({"max_length": 64}, []),
    ],
)
def test_a_changed_setting_runs_only_the_evaluations_that_depend_on_it(
    tiny_path: Path, facts: list[Example], tmp_path: Path, changes: dict, reused: list[str]
) -> None:
    _score(tiny_path, facts, tmp_path, Listener())
    listener = Listener()
    _score(tiny_path, facts, tmp_path, listener, **changes)
    assert listener.reused == reused


def test_different_items_are_scored_again(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    _score(tiny_path, facts, tmp_path, Listener())
    listener = Listener()
    _score(tiny_path, facts[::-1], tmp_path, listener)
    assert listener.reused == []


def test_another_checkpoint_at_the_same_path_is_scored_again(
    tiny_path: Path, taught_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_path, model)
    _score(model, facts, tmp_path / "out", Listener())
    shutil.copy(taught_path / "model.safetensors", model / "model.safetensors")
    listener = Listener()
    card = _score(model, facts, tmp_path / "out", listener)
    assert listener.reused == []
    assert card.by_name()["heldout.choice"].value == 1


def test_a_damaged_result_is_replaced(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    _score(tiny_path, facts, tmp_path, Listener())
    (tmp_path / "parts/heldout.json").write_text('{"identity": {')
    listener = Listener()
    _score(tiny_path, facts, tmp_path, listener)
    assert listener.started == ["heldout"]


def test_a_result_is_saved_with_its_identity_scores_and_samples(tmp_path: Path) -> None:
    samples = [{"measure": "mine", "id": "a", "value": 0.5}]
    evaluation = Evaluation(
        name="mine",
        num_items=1,
        settings={"shape": (1, 2)},
        run=lambda *, on_progress: EvaluationResult(scores=[], samples=samples, signature={"n": 1}),
    )
    store = ResultStore(tmp_path, {"template": "plain"})
    assert store.load(evaluation) is None
    finished = store.run(evaluation, lambda done, total: None)
    content = json.loads((tmp_path / "mine.json").read_text())
    assert content.pop("seconds") == finished.seconds
    assert content == {
        "identity": {"template": "plain", "part": "mine", "settings": {"shape": [1, 2]}},
        "scores": [],
        "secondary": [],
        "signature": {"n": 1},
        "samples": samples,
    }
    loaded = store.load(evaluation)
    assert loaded is not None
    assert loaded.result == finished.result
    assert ResultStore(tmp_path, {"template": "chat"}).load(evaluation) is None


def test_every_name_has_a_safe_file_name() -> None:
    assert safe_file_name("wmt14-en-fr") == "wmt14-en-fr"
    assert safe_file_name("mmlu/anatomy: de") == "mmlu_anatomy__de-b9e036ca"
    assert safe_file_name("../x").startswith("_x-")
    assert safe_file_name("a/b") != safe_file_name("a_b") != safe_file_name("a:b")


def test_a_score_that_is_not_a_number_is_a_divergence_and_keeps_the_responses(
    tmp_path: Path,
) -> None:
    store = ResultStore(tmp_path, {"model": "m"})
    num_computed = 0

    def run(*, on_progress: ProgressCallback) -> EvaluationResult:
        nonlocal num_computed
        responses = store.response_log("quiz", {})
        if responses.get("item") is None:
            num_computed += 1
            responses.add("item", [-1000.0, False])
        score = mean([float("nan")], seed=0).to_score(
            "quiz.acc", group="multiple_choice", higher_is_better=True, unit="share"
        )
        return EvaluationResult(scores=[score], samples=[])

    evaluation = Evaluation(name="quiz", num_items=1, run=run)
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"quiz\.acc is nan: .* diverged") as raised:
            store.run(evaluation, ignore_progress)
        assert raised.value.kind == "divergence"
    assert num_computed == 1
    assert store.load(evaluation) is None
