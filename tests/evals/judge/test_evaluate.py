"""The judged measures of a model: it answers, a scripted judge over HTTP decides."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evals.config import EvalConfig
from evals.judge.suites import check_judging
from evals.judge_config import (
    AlpacaEvalConfig,
    JudgeConfig,
    JudgedSetConfig,
    PandaLMConfig,
)
from evals.results.scores import ScoreCard
from evals.run import score_model
from evals.scoring_identity import scoring_identity
from tests.evals.judge_endpoint import Endpoint, serving
from trainers.data.examples import Example
from trainers.foundation.errors import InputError

OFF = {"heldout": None, "multiple_choice": None, "short_generation": None, "long_generation": None}


def right(instruction: str, first: str, second: str) -> str:
    """The verdict of a judge who knows two of the four answers, and sees nothing in the others."""
    answers = {"Join two paths.": "os.path.join", "What is the capital of France?": "Paris."}
    wanted = answers.get(instruction)
    good = [wanted is not None and text.strip() == wanted for text in (first, second)]
    return "Tie" if good[0] == good[1] else ("1" if good[0] else "2")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint(decide=right)) as found:
        yield found


@pytest.fixture
def judge(endpoint: Endpoint, tmp_path: Path) -> JudgeConfig:
    return JudgeConfig(
        base_url=endpoint.base_url,
        model="strict",
        api_key_env=None,
        backoff_s=0.01,
        cache_dir=str(tmp_path / "replies"),
    )


@pytest.fixture
def published(tmp_path: Path, facts: list[Example]) -> Path:
    """Outputs of an opponent that answers one question rightly and the others with nonsense."""
    path = tmp_path / "opponent_outputs.json"
    records = [
        {
            "dataset": "facts",
            "instruction": fact.prompt,
            "output": "Paris." if "France" in fact.prompt else "I do not know.",
            "generator": "opponent",
        }
        for fact in facts
    ]
    path.write_text(json.dumps(records))
    return path


def score(path: Path, facts: list[Example], out_dir: Path, **config: Any) -> ScoreCard:
    untuned, on_progress = config.pop("untuned_path", None), config.pop("on_progress", None)
    return score_model(
        model_path=path,
        examples=facts,
        template="plain",
        max_length=128,
        config=EvalConfig.model_validate(OFF | config),
        out_dir=out_dir,
        untuned_path=untuned,
        on_progress=on_progress,
    )


def samples_of(out_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out_dir / "samples.jsonl").read_text().splitlines()]


def test_alpaca_eval_judges_the_models_outputs_against_the_published_ones(
    taught_path: Path,
    facts: list[Example],
    judge: JudgeConfig,
    endpoint: Endpoint,
    published: Path,
    tmp_path: Path,
) -> None:
    alpaca_eval = AlpacaEvalConfig(reference=str(published), max_new_tokens=16)
    card = score(taught_path, facts, tmp_path / "out", alpaca_eval=alpaca_eval, judge=judge)
    scores = {score.name: score for score in (*card.scores, *card.secondary)}
    assert [score.name for score in card.scores] == ["alpaca_eval_win_rate"]
    # One win of the four, three ties, one of them because both say the same.
    assert scores["alpaca_eval_win_rate"].value == (1 + 3 * 0.5) / 4
    assert scores["alpaca_eval_win_rate"].group == "long_generation"
    assert scores["alpaca_eval_consistent_verdicts"].value == 1
    assert scores["alpaca_eval_consistent_verdicts"].group is None
    assert "alpaca_eval_length_controlled_win_rate" not in scores
    samples = samples_of(tmp_path / "out")
    assert [s["output"] for s in samples] == ["math.sqrt", "os.path.join", "Paris.", "list.sort"]
    assert [s["value"] for s in samples] == [0.5, 1, 0.5, 0.5]
    assert list(samples[0])[:6] == ["measure", "id", "prompt", "target", "output", "value"]
    assert samples[1]["verdicts"] == {
        "candidate_first": "candidate",
        "reference_first": "candidate",
    }
    assert samples[1]["replies"]["reference_first"]["text"].startswith("[{'model': 'model_1'")
    assert len(endpoint.requests) == 6
    signature = card.signature["alpaca_eval"]
    assert signature["judge"] == f"{endpoint.base_url} strict"
    assert signature["opponent"] == "opponent_outputs.json"


def test_pandalm_compares_with_the_untuned_model_whose_answers_are_made_once(
    taught_path: Path,
    tiny_path: Path,
    facts: list[Example],
    judge: JudgeConfig,
    tmp_path: Path,
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"instruction": f.prompt, "input": ""} for f in facts]))
    settings = {
        "pandalm": PandaLMConfig(prompts=str(prompts), max_new_tokens=8),
        "judge": judge,
        "untuned_path": tiny_path,
    }
    card = score(taught_path, facts, tmp_path / "a", **settings)
    # Two of four answers are known to the judge, and the random model has neither.
    assert card.by_name()["pandalm_win_rate"].value == (2 + 2 * 0.5) / 4
    assert len(list((tmp_path / "replies" / "untuned").iterdir())) == 1
    own = score(tiny_path, facts, tmp_path / "b", **settings)
    assert own.by_name()["pandalm_win_rate"].value == 0.5
    assert len(list((tmp_path / "replies" / "untuned").iterdir())) == 1


def test_pandalm_takes_any_outputs_for_its_opponents(
    taught_path: Path, facts: list[Example], judge: JudgeConfig, published: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"instruction": f.prompt, "input": ""} for f in facts[::-1]]))
    pandalm = PandaLMConfig(prompts=str(prompts), opponent=str(published), max_new_tokens=16)
    card = score(taught_path, facts, tmp_path / "out", pandalm=pandalm, judge=judge)
    assert card.by_name()["pandalm_win_rate"].value == (1 + 3 * 0.5) / 4


def test_the_papers_two_are_named_as_tasks_and_found_in_the_data_root(
    taught_path: Path, facts: list[Example], judge: JudgeConfig, published: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    (root / "alpaca_eval").mkdir(parents=True)
    (root / "pandalm").mkdir()
    published.rename(root / "alpaca_eval" / "text_davinci_003_outputs.json")
    prompts = [{"motivation_app": "x", "instruction": f.prompt, "input": ""} for f in facts]
    (root / "pandalm" / "testset-inference-v1.json").write_text(json.dumps(prompts))
    card = score(
        taught_path,
        facts,
        tmp_path / "out",
        tasks=["alpaca_eval", "pandalm"],
        alpaca_eval={"max_new_tokens": 16},
        pandalm={"max_new_tokens": 16},
        data_root=str(root),
        limit=3,
        judge=judge,
        untuned_path=taught_path,
    )
    values = {name: (s.value, s.num_items) for name, s in card.by_name().items()}
    assert values["alpaca_eval_win_rate"] == (pytest.approx(2 / 3), 3)
    # Against itself there is nothing to ask.
    assert values["pandalm_win_rate"] == (0.5, 3)


def test_a_set_of_ones_own_is_judged_by_its_name(
    taught_path: Path, facts: list[Example], judge: JudgeConfig, published: Path, tmp_path: Path
) -> None:
    own = JudgedSetConfig(
        name="facts", path=str(published), style="verdict", examples=2, max_new_tokens=16
    )
    card = score(taught_path, facts, tmp_path / "out", judged=[own], judge=judge)
    assert card.by_name()["facts_win_rate"].num_items == 2


def test_answers_and_verdicts_outlive_a_judge_that_breaks_down(
    taught_path: Path,
    facts: list[Example],
    judge: JudgeConfig,
    endpoint: Endpoint,
    published: Path,
    tmp_path: Path,
) -> None:
    alpaca_eval = AlpacaEvalConfig(reference=str(published), max_new_tokens=16)
    settings = {"alpaca_eval": alpaca_eval}
    endpoint.fault_share, endpoint.faults = 1.0, ("nonsense",)
    with pytest.raises(InputError, match="have no verdict"):
        score(taught_path, facts, tmp_path / "out", **settings, judge=judge)
    [answers] = (tmp_path / "out" / "outputs").iterdir()
    before = answers.stat().st_mtime_ns
    endpoint.fault_share = 0.0
    patient = judge.model_copy(update={"timeout_s": 300.0})
    card = score(taught_path, facts, tmp_path / "out", **settings, judge=patient)
    assert answers.stat().st_mtime_ns == before
    assert card.by_name()["alpaca_eval_win_rate"].value == 0.625


def test_answers_outlive_a_kill_one_by_one(
    taught_path: Path, facts: list[Example], judge: JudgeConfig, published: Path, tmp_path: Path
) -> None:
    alpaca_eval = AlpacaEvalConfig(reference=str(published), max_new_tokens=16)
    settings = {"alpaca_eval": alpaca_eval, "judge": judge, "batch_size": 1}

    def stop_at_two(measure: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(taught_path, facts, tmp_path / "out", **settings, on_progress=stop_at_two)
    told: list[int] = []
    card = score(
        taught_path,
        facts,
        tmp_path / "out",
        **settings,
        on_progress=lambda measure, done, total: told.append(done),
    )
    # Two answers that were left, then the verdicts on three pairs and on one of equal answers.
    assert told[:3] == [0, 3, 4]
    assert card.by_name()["alpaca_eval_win_rate"].value == 0.625
    assert [path.suffixes for path in (tmp_path / "out" / "outputs").iterdir()] == [[".json"]]


def test_an_untuned_opponent_must_be_known_before_anything_is_answered(
    taught_path: Path, facts: list[Example], judge: JudgeConfig, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"instruction": "Sing."}]))
    with pytest.raises(InputError, match=r"evals.pandalm.opponent: .* none is known here"):
        score(
            taught_path,
            facts,
            tmp_path / "out",
            pandalm=PandaLMConfig(prompts=str(prompts), max_new_tokens=4),
            judge=judge,
        )
    assert not (tmp_path / "out").exists()


def test_a_missing_file_and_a_missing_key_are_found_before_any_model_is_loaded(
    judge: JudgeConfig, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(reference: Path, judge: JudgeConfig) -> EvalConfig:
        alpaca_eval = AlpacaEvalConfig(reference=str(reference))
        return EvalConfig.model_validate(OFF | {"alpaca_eval": alpaca_eval, "judge": judge})

    with pytest.raises(InputError, match=r"none.json: cannot be read: No such file"):
        check_judging(config(tmp_path / "none.json", judge))
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    locked = judge.model_copy(update={"api_key_env": "JUDGE_KEY"})
    with pytest.raises(InputError, match="the environment variable JUDGE_KEY is not set"):
        check_judging(config(published, locked))


def test_time_and_money_are_no_part_of_what_scores_depend_on(
    facts: list[Example], judge: JudgeConfig
) -> None:
    def identity(judge: JudgeConfig) -> dict[str, Any]:
        alpaca_eval = AlpacaEvalConfig(reference="outputs.json")
        config = EvalConfig.model_validate(OFF | {"alpaca_eval": alpaca_eval, "judge": judge})
        return scoring_identity(facts, config, template="plain", max_length=64)

    same = judge.model_copy(update={"timeout_s": 1.0, "concurrency": 2, "retries": 1})
    assert identity(same) == identity(judge)
    other = judge.model_copy(update={"max_tokens": 99})
    assert identity(other) != identity(judge)
    assert "judge" not in scoring_identity(
        facts, EvalConfig(), template="plain", max_length=64
    )["measures"]  # fmt: skip
