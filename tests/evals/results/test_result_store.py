import json
import shutil
from pathlib import Path

import pytest

from evals.config import EvalConfig, GenerationConfig, HeldoutConfig, MultipleChoiceConfig
from evals.results.measurement import Measured
from evals.results.result_store import Part, PartFolder, file_name
from evals.results.scores import ScoreCard
from evals.run import score_model
from trainers.data.examples import Example
from trainers.foundation.files import read_json

CONFIG = EvalConfig(
    heldout=HeldoutConfig(examples=4),
    multiple_choice=MultipleChoiceConfig(examples=3, choices=3),
    short_generation=GenerationConfig(examples=4, max_new_tokens=4),
    long_generation=GenerationConfig(examples=2, max_new_tokens=8, invert=True),
    batch_size=2,
)
MEASURES = ["heldout", "multiple_choice", "short_generation", "long_generation"]


class Killed(BaseException):
    """As a signal would end the process: no handler of errors sees it."""


class Listener:
    """Which measures were begun and which were kept; may kill the scoring within one."""

    def __init__(self, kill_in: str | None = None) -> None:
        self.begun: list[str] = []
        self.kept: list[str] = []
        self._kill_in = kill_in

    def on_progress(self, measure: str, done: int, total: int) -> None:
        if done == 0:
            self.begun.append(measure)
        elif measure == self._kill_in:
            raise Killed

    def on_kept(self, measures: list[str]) -> None:
        self.kept += measures


def _score(path: Path, facts: list[Example], out_dir: Path, listener: Listener, **changes):
    arguments = {
        "model_path": path,
        "examples": facts,
        "template": "plain",
        "max_length": 128,
        "config": CONFIG,
        "out_dir": out_dir,
        "on_progress": listener.on_progress,
        "on_kept": listener.on_kept,
    }
    return score_model(**(arguments | changes))


def test_a_killed_scoring_does_only_what_is_missing_and_comes_to_the_same(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    whole = _score(tiny_path, facts, tmp_path / "whole", Listener())
    with pytest.raises(Killed):
        _score(tiny_path, facts, tmp_path / "killed", Listener(kill_in="short_generation"))
    assert not (tmp_path / "killed/scores.json").exists()
    again = Listener()
    resumed = _score(tiny_path, facts, tmp_path / "killed", again)
    assert again.kept == ["heldout", "multiple_choice"]
    assert again.begun == ["short_generation", "long_generation"]
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
    assert (listener.begun, listener.kept) == ([], MEASURES)
    assert second.scores == first.scores
    assert second.seconds > first.seconds * 0.5
    assert ScoreCard.model_validate(read_json(tmp_path / "scores.json")) == second


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        (
            {"config": CONFIG.model_copy(update={"heldout": HeldoutConfig(examples=3)})},
            MEASURES[1:],
        ),
        ({"config": CONFIG.model_copy(update={"seed": 1})}, []),
        ({"template": "alpaca"}, []),
        ({"max_length": 64}, []),
    ],
)
def test_only_what_a_changed_setting_concerns_is_scored_again(
    tiny_path: Path, facts: list[Example], tmp_path: Path, changes: dict, kept: list[str]
) -> None:
    _score(tiny_path, facts, tmp_path, Listener())
    listener = Listener()
    _score(tiny_path, facts, tmp_path, listener, **changes)
    assert listener.kept == kept


def test_other_items_are_scored_again(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    _score(tiny_path, facts, tmp_path, Listener())
    listener = Listener()
    _score(tiny_path, facts[::-1], tmp_path, listener)
    assert listener.kept == []


def test_another_checkpoint_in_the_same_place_is_scored_again(
    tiny_path: Path, taught_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_path, model)
    _score(model, facts, tmp_path / "out", Listener())
    shutil.copy(taught_path / "model.safetensors", model / "model.safetensors")
    listener = Listener()
    card = _score(model, facts, tmp_path / "out", listener)
    assert listener.kept == []
    assert card.by_name()["multiple_choice_accuracy"].value == 1


def test_a_damaged_part_is_taken_again(
    tiny_path: Path, facts: list[Example], tmp_path: Path
) -> None:
    _score(tiny_path, facts, tmp_path, Listener())
    (tmp_path / "parts/heldout.json").write_text('{"identity": {')
    listener = Listener()
    _score(tiny_path, facts, tmp_path, listener)
    assert listener.begun == ["heldout"]


def test_a_part_that_is_taken_is_a_file_with_all_that_it_came_to(tmp_path: Path) -> None:
    samples = [{"measure": "mine", "id": "a", "value": 0.5}]
    part = Part(
        name="mine",
        num_items=1,
        settings={"shape": (1, 2)},
        measure=lambda *, on_progress: Measured(scores=[], samples=samples, signature={"n": 1}),
    )
    folder = PartFolder(tmp_path, {"template": "plain"})
    assert folder.kept(part) is None
    taken = folder.take(part, lambda done, total: None)
    content = json.loads((tmp_path / "mine.json").read_text())
    assert content.pop("seconds") == taken.seconds
    assert content == {
        "identity": {"template": "plain", "part": "mine", "settings": {"shape": [1, 2]}},
        "scores": [],
        "secondary": [],
        "signature": {"n": 1},
        "samples": samples,
    }
    kept = folder.kept(part)
    assert kept is not None
    assert kept.measured == taken.measured
    assert PartFolder(tmp_path, {"template": "chat"}).kept(part) is None


def test_any_name_of_a_measure_can_be_that_of_a_file() -> None:
    assert file_name("wmt14-en-fr") == "wmt14-en-fr"
    assert file_name("mmlu/anatomy: de") == "mmlu_anatomy__de-b9e036ca"
    assert file_name("../x").startswith("_x-")
    assert file_name("a/b") != file_name("a_b") != file_name("a:b")
