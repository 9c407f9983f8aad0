"""Groups of tasks: the same numbers as lm-eval's own evaluation, and one main score each."""

from pathlib import Path
from typing import Any

import pytest

from evals.config import EvalConfig
from evals.harness.planning import plan_tasks
from evals.harness.registry import suppress_lm_eval_output
from evals.harness.rescore import rescore
from evals.harness.results import score_name
from evals.results.scores import Score, ScoreCard
from evals.run import score_model
from tests.evals.task_folders import SUBJECTS, write_made_up_group, write_open_llm
from trainers.foundation.errors import InputError

# Importing lm-eval takes seconds.
pytestmark = pytest.mark.slow

NONE = dict.fromkeys(("heldout", "heldout_choice", "heldout_exact_match", "heldout_chrf"))


@pytest.fixture(scope="module")
def open_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_open_llm(tmp_path_factory.mktemp("open_llm"))


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_made_up_group(tmp_path_factory.mktemp("made_up"))


def _score(model: Path, out_dir: Path, include_path: Path, *tasks: Any) -> ScoreCard:
    config = EvalConfig.model_validate(
        NONE | {"tasks": list(tasks), "include_path": str(include_path)}
    )
    return score_model(
        model_path=model, examples=[], template="plain", max_length=128, config=config,
        out_dir=out_dir,
    )  # fmt: skip


def _lm_eval_results(model: Path, include_path: Path, task: str, **options: Any) -> dict[str, Any]:
    """Return the results of lm-eval's own entry point, with its own model class."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with suppress_lm_eval_output():
        return simple_evaluate(
            model=HFLM(pretrained=str(model), dtype="float32", batch_size=4, device="cpu"),
            tasks=[task],
            task_manager=TaskManager(include_path=str(include_path), include_defaults=False),
            fewshot_random_seed=0,
            bootstrap_iters=0,
            **options,
        )  # fmt: skip


def _assert_same(card: ScoreCard, expected: dict[str, Any]) -> None:
    found = {score.name: score.value for score in (*card.scores, *card.secondary)}
    values = {
        score_name(name, *key.split(",")): value
        for name, metrics in expected["results"].items()
        for key, value in metrics.items()
        if "," in key and "stderr" not in key
    }
    assert found == pytest.approx(values, abs=1e-6)
    num_fewshot = {name: task["num_fewshot"] for name, task in card.signature["tasks"].items()}
    assert num_fewshot == {name: expected["n-shot"][name] for name in num_fewshot}


def _by_name(card: ScoreCard) -> dict[str, Score]:
    return {score.name: score for score in (*card.scores, *card.secondary)}


def test_open_llm_has_the_numbers_of_lm_eval_and_one_score_for_each_member(
    tiny_path: Path, open_llm: Path, tmp_path: Path
) -> None:
    card = _score(tiny_path, tmp_path, open_llm, "openllm")
    # lm-eval 0.4.13 cannot run openllm itself: it gives all tasks of mmlu the name mmlu.
    parts = [
        _lm_eval_results(tiny_path, open_llm, name, num_fewshot=num_fewshot)
        for name, num_fewshot in (("open_llm_tasks", None), ("truthfulqa", 0), ("mmlu", 5))
    ]
    expected = {key: {k: v for part in parts for k, v in part[key].items()}
                for key in ("results", "n-shot")}  # fmt: skip
    _assert_same(card, expected)
    assert {score.name: (score.group, score.num_items) for score in card.scores} == {
        "arc_challenge.acc_norm": ("multiple_choice", 6),
        "hellaswag.acc_norm": ("multiple_choice", 5),
        "truthfulqa_mc1.acc": ("multiple_choice", 6),
        "truthfulqa_mc2.acc": ("multiple_choice", 6),
        "mmlu.acc": ("multiple_choice", 37),
        "winogrande.acc": ("multiple_choice", 6),
        "gsm8k.exact_match.strict-match": ("short_generation", 3),
    }
    tasks = card.signature["tasks"]
    assert [tasks[name]["num_fewshot"] for name in ("arc_challenge", "hellaswag")] == [25, 10]
    assert {tasks[f"mmlu_{subject}"]["num_fewshot"] for subject in SUBJECTS} == {5}
    assert card.signature["groups"]["mmlu_stem"]["tasks"] == ["mmlu_anatomy", "mmlu_astronomy"]
    assert {score.group for score in card.secondary} == {None}


def test_mmlu_counts_once_with_its_subjects_as_secondary_scores(
    tiny_path: Path, open_llm: Path, tmp_path: Path
) -> None:
    card = _score(tiny_path, tmp_path, open_llm, {"name": "mmlu", "num_fewshot": 2, "limit": 2})
    _assert_same(card, _lm_eval_results(tiny_path, open_llm, "mmlu", num_fewshot=2, limit=2))
    (headline,) = card.scores
    assert (headline.name, headline.num_items) == ("mmlu.acc", 16)
    subjects = {f"mmlu_{subject}.acc" for subject in SUBJECTS}
    areas = {f"mmlu_{area}.acc" for area in ("stem", "other", "social_sciences", "humanities")}
    assert {score.name for score in card.secondary} == subjects | areas
    again = rescore(tmp_path)
    assert (again.scores, again.secondary) == (card.scores, card.secondary)


def test_a_group_keeps_its_overrides_and_weights(
    tiny_path: Path, made_up: Path, tmp_path: Path
) -> None:
    card = _score(tiny_path, tmp_path, made_up, "made_up")
    _assert_same(card, _lm_eval_results(tiny_path, made_up, "made_up"))
    scores = _by_name(card)
    (headline,) = card.scores
    members = [scores[f"{name}.acc_norm"] for name in ("short", "long", "other")]
    assert headline.value == pytest.approx(sum(member.value for member in members) / 3)
    variances = [(member.standard_error or 0) ** 2 for member in members]
    assert headline.standard_error == pytest.approx(sum(variances) ** 0.5 / 3)
    weighted = sum(scores[f"{n}.acc"].value * size for n, size in
                   (("short", 3), ("long", 8), ("other", 5)))  # fmt: skip
    assert scores["made_up.acc"].value == pytest.approx(weighted / 16)
    assert card.signature["groups"]["made_up"]["version"] == "7"
    assert [task["num_fewshot"] for task in card.signature["tasks"].values()] == [2, 0, 0]


def test_the_spec_chooses_metric_and_filter(
    tiny_path: Path, open_llm: Path, made_up: Path, tmp_path: Path
) -> None:
    task = {"name": "gsm8k", "filter": "flexible-extract", "limit": 2}
    card = _score(tiny_path, tmp_path / "gsm8k", open_llm, task)
    assert [score.name for score in card.scores] == ["gsm8k.exact_match.flexible-extract"]
    assert [score.name for score in card.secondary] == ["gsm8k.exact_match.strict-match"]
    card = _score(tiny_path, tmp_path / "group", made_up, {"name": "made_up", "metric": "acc"})
    assert [score.name for score in card.scores] == ["made_up.acc"]
    assert card.scores[0].group == "multiple_choice"


def test_an_unknown_metric_or_filter_is_rejected_with_the_known_ones(
    tiny_path: Path, open_llm: Path, tmp_path: Path
) -> None:
    task = {"name": "gsm8k", "metric": "acc", "filter": "none"}
    with pytest.raises(InputError) as raised:
        _score(tiny_path, tmp_path, open_llm, task)
    assert str(raised.value) == (
        "evals.tasks: metric of gsm8k must be one of exact_match, got acc; set metric: exact_match"
        "\nevals.tasks: filter of gsm8k must be one of strict-match, flexible-extract, got none;"
        " set filter: strict-match"
    )


def test_a_task_in_two_entries_is_rejected(open_llm: Path) -> None:
    tasks = ["mmlu", "mmlu_anatomy", "multiple_choice", {"name": "piqa", "num_fewshot": 3}]
    config = EvalConfig.model_validate(NONE | {"tasks": tasks, "include_path": str(open_llm)})
    with pytest.raises(InputError) as raised:
        plan_tasks(config)
    assert [problem.message for problem in raised.value.problems] == [
        "mmlu_anatomy would be scored twice: by mmlu and by mmlu_anatomy",
        "piqa would be scored twice: by piqa and by piqa",
    ]
