"""Judged tasks of a model: it generates outputs, a fake judge over HTTP decides."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evals.config import EvalConfig
from evals.judge.suites import check_judge_setup
from evals.judge_config import (
    AlpacaEvalConfig,
    JudgeConfig,
    JudgedSetConfig,
    PandaLMPromptsConfig,
)
from evals.results.scores import ScoreCard
from evals.run import score_model
from evals.scoring_identity import scoring_identity
from tests.evals.judge_endpoint import Endpoint, serving
from trainers.data.examples import Example
from trainers.foundation.errors import InputError

OFF = {"heldout": None, "heldout_choice": None, "heldout_exact_match": None, "heldout_chrf": None}


def prefer_correct(instruction: str, first: str, second: str) -> str:
    """Return the verdict of a judge that knows two of the four answers; the others are ties."""
    answers = {"Join two paths.": "os.path.join", "What is the capital of France?": "Paris."}
    expected = answers.get(instruction)
    good = [expected is not None and text.strip() == expected for text in (first, second)]
    return "Tie" if good[0] == good[1] else ("1" if good[0] else "2")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint(decide=prefer_correct)) as found:
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
    """Outputs of an opponent with one correct answer."""
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
    plw_0 = config.pop("plw_0_path", None)
    return score_model(
        model_path=path,
        examples=facts,
        template="plain",
        max_length=128,
        config=EvalConfig.model_validate(OFF | config),
        out_dir=out_dir,
        untuned_path=untuned,
        plw_0_path=plw_0,
        on_progress=on_progress,
    )


def samples_of(out_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out_dir / "samples.jsonl").read_text().splitlines()]


def test_alpaca_eval_judges_a_model_against_published_outputs(
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
    # One win and three ties, one of them of equal outputs.
    assert scores["alpaca_eval_win_rate"].value == (1 + 3 * 0.5) / 4
    assert scores["alpaca_eval_win_rate"].group == "long_generation"
    assert scores["alpaca_eval_consistent_verdicts"].value == 1
    assert scores["alpaca_eval_consistent_verdicts"].group is None
    assert "alpaca_eval_length_adjusted_win_rate" not in scores
    samples = samples_of(tmp_path / "out")
    assert [s["output"] for s in samples] == ["math.sqrt", "os.path.join", "Paris.", "list.sort"]
    assert [s["value"] for s in samples] == [0.5, 1, 0.5, 0.5]
    truncated = scores["alpaca_eval_truncated"]
    assert (truncated.value, truncated.group) == (0, None)
    written = tmp_path / "out" / "outputs" / "alpaca_eval.alpaca_eval.json"
    assert json.loads(written.read_text())[1] == {
        "instruction": facts[1].prompt,
        "output": "os.path.join",
        "generator": str(taught_path),
    }
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


def test_pandalm_generates_the_untuned_models_outputs_once(
    taught_path: Path,
    tiny_path: Path,
    facts: list[Example],
    judge: JudgeConfig,
    tmp_path: Path,
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"instruction": f.prompt, "input": ""} for f in facts]))
    settings = {
        "pandalm_prompts": PandaLMPromptsConfig(
            prompts=str(prompts), opponent="untuned", max_new_tokens=8
        ),
        "judge": judge,
        "untuned_path": tiny_path,
    }
    card = score(taught_path, facts, tmp_path / "a", **settings)
    # The judge knows two of the four answers; the random model has neither.
    assert card.by_name()["pandalm_prompts_win_rate"].value == (2 + 2 * 0.5) / 4
    assert len(list((tmp_path / "replies" / "untuned").iterdir())) == 1
    custom = score(tiny_path, facts, tmp_path / "b", **settings)
    assert custom.by_name()["pandalm_prompts_win_rate"].value == 0.5
    assert len(list((tmp_path / "replies" / "untuned").iterdir())) == 1


def test_pandalm_accepts_a_file_of_opponent_outputs(
    taught_path: Path, facts: list[Example], judge: JudgeConfig, published: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"instruction": f.prompt, "input": ""} for f in facts[::-1]]))
    pandalm = PandaLMPromptsConfig(prompts=str(prompts), opponent=str(published), max_new_tokens=16)
    card = score(taught_path, facts, tmp_path / "out", pandalm_prompts=pandalm, judge=judge)
    assert card.by_name()["pandalm_prompts_win_rate"].value == (1 + 3 * 0.5) / 4


def test_tasks_find_the_papers_files_in_the_data_root(
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
        tasks=["alpaca_eval", "pandalm_prompts"],
        alpaca_eval={"max_new_tokens": 16},
        pandalm_prompts={"max_new_tokens": 16, "opponent": "untuned"},
        data_root=str(root),
        limit=3,
        judge=judge,
        untuned_path=taught_path,
    )
    values = {name: (s.value, s.num_items) for name, s in card.by_name().items()}
    assert values["alpaca_eval_win_rate"] == (pytest.approx(2 / 3), 3)
    # Equal outputs need no requests.
    assert values["pandalm_prompts_win_rate"] == (0.5, 3)


def test_a_custom_set_is_judged(
    taught_path: Path, facts: list[Example], judge: JudgeConfig, published: Path, tmp_path: Path
) -> None:
    custom = JudgedSetConfig(
        name="facts", path=str(published), style="verdict", examples=2, max_new_tokens=16
    )
    card = score(taught_path, facts, tmp_path / "out", judged=[custom], judge=judge)
    assert card.by_name()["facts_win_rate"].num_items == 2


def test_outputs_survive_a_failed_judge(
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
    [outputs] = (tmp_path / "out" / "outputs").glob("alpaca_eval-*.json")
    before = outputs.stat().st_mtime_ns
    endpoint.fault_share = 0.0
    slower = judge.model_copy(update={"timeout_s": 300.0})
    card = score(taught_path, facts, tmp_path / "out", **settings, judge=slower)
    assert outputs.stat().st_mtime_ns == before
    assert card.by_name()["alpaca_eval_win_rate"].value == 0.625


def test_outputs_survive_an_interrupt_one_by_one(
    taught_path: Path, facts: list[Example], judge: JudgeConfig, published: Path, tmp_path: Path
) -> None:
    alpaca_eval = AlpacaEvalConfig(reference=str(published), max_new_tokens=16)
    settings = {"alpaca_eval": alpaca_eval, "judge": judge, "batch_size": 1}

    def stop_at_two(measure: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(taught_path, facts, tmp_path / "out", **settings, on_progress=stop_at_two)
    reported: list[int] = []
    card = score(
        taught_path,
        facts,
        tmp_path / "out",
        **settings,
        on_progress=lambda measure, done, total: reported.append(done),
    )
    # The two remaining outputs, then the pair of equal outputs and the other pairs.
    assert reported[:3] == [0, 3, 4]
    assert card.by_name()["alpaca_eval_win_rate"].value == 0.625
    # The log of single outputs is gone.
    assert [*(tmp_path / "out" / "outputs").glob("*.answers.jsonl")] == []
    assert len([*(tmp_path / "out" / "outputs").glob("alpaca_eval-*.json")]) == 1


def test_the_weights_of_the_untuned_model_are_not_read_once_its_outputs_are_cached(
    taught_path: Path, tiny_path: Path, facts: list[Example], judge: JudgeConfig, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"instruction": fact.prompt} for fact in facts]))
    untuned = tmp_path / "untuned"
    shutil.copytree(tiny_path, untuned)
    settings = {
        "pandalm_prompts": PandaLMPromptsConfig(
            prompts=str(prompts), opponent="untuned", max_new_tokens=8
        ),
        "judge": judge,
        "untuned_path": untuned,
    }
    first = score(taught_path, facts, tmp_path / "a", **settings)
    weights = untuned / "model.safetensors"
    stat = weights.stat()
    weights.write_bytes(b"0" * stat.st_size)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = score(taught_path, facts, tmp_path / "b", **settings)
    name = "pandalm_prompts_win_rate"
    assert second.by_name()[name] == first.by_name()[name]


def test_pandalms_default_opponent_is_the_trial_with_plw_0(
    taught_path: Path,
    tiny_path: Path,
    facts: list[Example],
    judge: JudgeConfig,
    endpoint: Endpoint,
    tmp_path: Path,
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"instruction": fact.prompt} for fact in facts]))
    settings = {
        "pandalm_prompts": {"prompts": str(prompts), "max_new_tokens": 8},
        "judge": judge,
        "untuned_path": tiny_path,
    }
    plw_0 = tmp_path / "plw_0"
    shutil.copytree(taught_path, plw_0)
    own = score(plw_0, facts, tmp_path / "a", **settings, plw_0_path=plw_0)
    name = "pandalm_prompts_win_rate"
    assert (own.by_name()[name].value, own.by_name()[name].num_items) == (0.5, 4)
    assert endpoint.requests == []
    assert not (tmp_path / "replies" / "untuned").exists()
    shutil.rmtree(plw_0)
    outputs = tmp_path / "a" / "outputs" / "pandalm_prompts.alpaca_eval.json"
    # The untuned model, too, is compared with the trial with PLW 0.
    card = score(tiny_path, facts, tmp_path / "b", **settings, plw_0_path=outputs)
    # The judge knows two of the four answers; the random model has neither.
    assert card.by_name()[name].value == (2 * 0 + 2 * 0.5) / 4
    assert card.signature["pandalm_prompts"]["opponent"] == "plw_0"


def test_a_trial_with_plw_0_needs_a_sweep(
    taught_path: Path, facts: list[Example], judge: JudgeConfig, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"instruction": "Sing."}]))
    expected = (
        r"evals.pandalm_prompts.opponent: the opponent in pandalm_prompts is the trial with PLW 0"
        r".*there is no sweep here.*outputs/pandalm_prompts.alpaca_eval.json"
    )
    with pytest.raises(InputError, match=expected):
        score(
            taught_path,
            facts,
            tmp_path / "out",
            pandalm_prompts={"prompts": str(prompts)},
            judge=judge,
            untuned_path=taught_path,
        )


def test_an_unknown_untuned_model_is_reported_before_generation(
    taught_path: Path, facts: list[Example], judge: JudgeConfig, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"instruction": "Sing."}]))
    expected = r"evals.pandalm_prompts.opponent: .* its path is unknown here"
    with pytest.raises(InputError, match=expected):
        score(
            taught_path,
            facts,
            tmp_path / "out",
            pandalm_prompts=PandaLMPromptsConfig(
                prompts=str(prompts), opponent="untuned", max_new_tokens=4
            ),
            judge=judge,
        )
    assert not (tmp_path / "out").exists()


def test_missing_files_and_keys_are_reported_before_loading_a_model(
    judge: JudgeConfig, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(reference: Path, judge: JudgeConfig) -> EvalConfig:
        alpaca_eval = AlpacaEvalConfig(reference=str(reference))
        return EvalConfig.model_validate(OFF | {"alpaca_eval": alpaca_eval, "judge": judge})

    with pytest.raises(InputError, match=r"none.json: cannot be read: No such file"):
        check_judge_setup(config(tmp_path / "none.json", judge))
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    locked = judge.model_copy(update={"api_key_env": "JUDGE_KEY"})
    with pytest.raises(InputError, match="the environment variable JUDGE_KEY is not set"):
        check_judge_setup(config(published, locked))


def test_settings_of_time_and_money_are_not_in_the_scoring_identity(
    facts: list[Example], judge: JudgeConfig
) -> None:
    def identity(judge: JudgeConfig) -> dict[str, Any]:
        alpaca_eval = AlpacaEvalConfig(reference="outputs.json")
        config = EvalConfig.model_validate(OFF | {"alpaca_eval": alpaca_eval, "judge": judge})
        return scoring_identity(facts, config, template="plain", max_length=64)

    same = judge.model_copy(update={"timeout_s": 1.0, "concurrency": 2, "retries": 1})
    assert identity(same) == identity(judge)
    for change in ({"max_tokens": 99}, {"structured_output": True}):
        assert identity(judge.model_copy(update=change)) != identity(judge)
    assert "judge" not in scoring_identity(
        facts, EvalConfig(), template="plain", max_length=64
    )["measures"]  # fmt: skip
