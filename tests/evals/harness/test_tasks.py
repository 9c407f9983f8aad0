"""Benchmarks with a tiny model: scores, resumed runs, rescoring and invalid input."""

import json
from pathlib import Path

import pytest

from evals.config import EvalConfig
from evals.harness.rescore import rescore
from evals.results.scores import ScoreCard
from evals.run import score_model
from tests.evals.benchmark_files import write_data_root, write_lines
from trainers.foundation.errors import InputError
from trainers.foundation.files import read_json

# Importing lm-eval takes seconds.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_root(tmp_path_factory.mktemp("data"))


def _score(path: Path, out_dir: Path, **settings) -> ScoreCard:
    none = dict.fromkeys(("heldout", "heldout_choice", "heldout_exact_match", "heldout_chrf"))
    config = EvalConfig.model_validate(none | settings)
    return score_model(
        model_path=path, examples=[], template="plain", max_length=128, config=config,
        out_dir=out_dir,
    )  # fmt: skip


def _samples(out_dir: Path) -> list[dict]:
    lines = (out_dir / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_task_has_a_main_score_a_signature_and_every_sample(
    tiny_path: Path, data_root: Path, tmp_path: Path
) -> None:
    tasks = ["arc_challenge", {"name": "wmt14-en-fr", "limit": 2}]
    card = _score(tiny_path, tmp_path, tasks=tasks, data_root=str(data_root), limit=4)
    accuracy, ter = card.scores
    assert (accuracy.name, accuracy.group) == ("arc_challenge.acc_norm", "multiple_choice")
    assert (accuracy.num_items, accuracy.unit) == (4, "share of items")
    assert accuracy.interval_method.startswith("percentile bootstrap over items")
    assert (ter.name, ter.group, ter.unit) == ("wmt14-en-fr.ter", "short_generation", "TER")
    assert (ter.num_items, ter.higher_is_better) == (2, False)
    assert [score.name for score in card.secondary] == [
        "arc_challenge.acc", "wmt14-en-fr.bleu", "wmt14-en-fr.chrf",
    ]  # fmt: skip
    assert {score.group for score in card.secondary} == {None}
    signature = card.signature["tasks"]["wmt14-en-fr"]
    assert len(signature.pop("prompts_sha256")) == 64
    assert signature.pop("lm_eval").startswith("0.4.")
    assert signature == {
        "version": 1.0, "num_fewshot": 0, "limit": 2, "seed": 0, "template": "none",
    }  # fmt: skip
    samples = _samples(tmp_path)
    assert [sample["measure"] for sample in samples] == ["arc_challenge"] * 4 + ["wmt14-en-fr"] * 2
    for sample in samples:
        assert list(sample)[:6] == ["measure", "id", "prompt", "target", "output", "value"]
    assert samples[0]["prompt"] == "Question: Which of these would Ann need to tie a boat?\nAnswer:"
    assert samples[0]["choices"][0]["text"] == " a red apple"
    assert samples[4]["prompt"] == "English phrase: Ann has a red apple.\nFrench phrase:"


def test_num_fewshot_changes_prompts_unless_the_task_file_sets_it_to_0(
    tiny_path: Path, data_root: Path, tmp_path: Path
) -> None:
    tasks = [{"name": "piqa", "num_fewshot": 2}, {"name": "truthfulqa_mc2", "num_fewshot": 2}]
    card = _score(tiny_path, tmp_path, tasks=tasks, data_root=str(data_root), limit=2)
    num_fewshot = {name: task["num_fewshot"] for name, task in card.signature["tasks"].items()}
    assert num_fewshot == {"piqa": 2, "truthfulqa_mc2": 0}
    assert _samples(tmp_path)[0]["prompt"].count("Question: ") == 3


def test_no_item_is_a_few_shot_example_of_itself(
    tiny_path: Path, data_root: Path, tmp_path: Path
) -> None:
    num_items = len((data_root / "piqa/validation.jsonl").read_text().splitlines())
    tasks = [{"name": "piqa", "num_fewshot": num_items - 1}]
    _score(tiny_path, tmp_path, tasks=tasks, data_root=str(data_root))
    for sample in _samples(tmp_path):
        questions = [part.split("\n")[0] for part in sample["prompt"].split("Question: ")[1:]]
        assert len(set(questions)) == num_items
    tasks[0]["num_fewshot"] = num_items
    with pytest.raises(InputError, match=f"num_fewshot of piqa must be at most {num_items - 1}, "):
        _score(tiny_path, tmp_path, tasks=tasks, data_root=str(data_root))


@pytest.mark.parametrize("template", ["plain", "chat", "alpaca"])
def test_prompts_are_in_the_template_of_the_checkpoint_if_configured(
    tiny_path: Path, data_root: Path, tmp_path: Path, template: str
) -> None:
    config = EvalConfig.model_validate(
        {
            "heldout": None, "heldout_choice": None, "heldout_exact_match": None,
            "heldout_chrf": None, "tasks": [{"name": "piqa", "num_fewshot": 1}],
            "data_root": str(data_root), "limit": 1, "task_template": "checkpoint",
        }
    )  # fmt: skip
    card = score_model(
        model_path=tiny_path, examples=[], template=template, max_length=128, config=config,
        out_dir=tmp_path,
    )  # fmt: skip
    (sample,) = _samples(tmp_path)
    start, end = {
        "plain": ("Question: ", "Answer:\n\n"),
        "chat": ("<|user|>Question: ", "Answer:<eos><|assistant|>"),
        "alpaca": ("Below is an instruction", "### Response:"),
    }[template]
    assert sample["prompt"].startswith(start)
    assert sample["prompt"].rstrip("\n").endswith(end.rstrip("\n"))
    assert sample["choices"][0]["text"] == "Put a red apple on it."
    assert card.signature["tasks"]["piqa"]["template"] == "checkpoint"
    assert rescore(tmp_path).scores == card.scores


def test_a_killed_task_continues_after_its_last_response(
    tiny_path: Path, data_root: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(name: str, done: int, total: int) -> None:
        if name == "wmt16-ro-en" and done >= 2:
            raise Killed

    none = dict.fromkeys(("heldout", "heldout_choice", "heldout_exact_match", "heldout_chrf"))
    config = EvalConfig.model_validate(
        none | {"tasks": ["piqa", "wmt16-ro-en"], "data_root": str(data_root), "batch_size": 2}
    )
    arguments = {
        "model_path": tiny_path, "examples": [], "template": "plain", "max_length": 128,
        "config": config,
    }  # fmt: skip
    whole = score_model(**arguments, out_dir=tmp_path / "whole")
    with pytest.raises(Killed):
        score_model(**arguments, out_dir=tmp_path / "killed", on_progress=kill)
    log = tmp_path / "killed/parts/wmt16-ro-en.answers.jsonl"
    assert len(log.read_text().splitlines()) == 3
    with log.open("a") as file:
        file.write('["torn')
    reports: list[tuple[str, int, int]] = []
    reused: list[str] = []
    resumed = score_model(
        **arguments, out_dir=tmp_path / "killed",
        on_progress=lambda *step: reports.append(step), on_reused=reused.extend,
    )  # fmt: skip
    assert reused == ["piqa"]
    assert reports == [("wmt16-ro-en", done, 6) for done in (3, 4, 5, 6)]
    assert not log.exists()
    assert resumed.scores == whole.scores
    assert _samples(tmp_path / "killed") == _samples(tmp_path / "whole")


def test_responses_can_be_scored_again_without_the_model(
    tiny_path: Path, data_root: Path, tmp_path: Path
) -> None:
    tasks = ["winogrande", "truthfulqa_mc2", "truthfulqa_gen", "wmt14-fr-en"]
    card = _score(tiny_path, tmp_path, tasks=tasks, data_root=str(data_root), limit=3)
    samples = _samples(tmp_path)
    again = rescore(tmp_path)
    assert again.scores == card.scores
    assert again.secondary == card.secondary
    assert again.signature == card.signature
    assert _samples(tmp_path) == samples
    assert ScoreCard.model_validate(read_json(tmp_path / "scores.json")) == again


def test_responses_to_other_prompts_are_not_scored_again(tiny_path: Path, tmp_path: Path) -> None:
    root = write_data_root(tmp_path / "data")
    _score(tiny_path, tmp_path / "out", tasks=["piqa"], data_root=str(root), limit=2)
    file = root / "piqa/validation.jsonl"
    file.write_text(file.read_text().replace("cold", "warm"))
    with pytest.raises(InputError, match="the prompts of piqa have changed since the model"):
        rescore(tmp_path / "out")
    with pytest.raises(InputError, match="cannot read scores: "):
        rescore(tmp_path / "nowhere")


def test_custom_benchmarks_are_scored_by_their_kind(
    taught_path: Path, facts, tmp_path: Path
) -> None:
    rows = [
        {"prompt": f"{fact.prompt}\n\n", "target": fact.completion, "choices": ["wrong", "x"]}
        for fact in facts
    ]
    generated = [{**row, "target": ["not this", row["target"]]} for row in rows]
    choices = [
        {"prompt": row["prompt"], "choices": ["no", row["target"]], "label": 1} for row in rows
    ]
    write_lines(tmp_path / "g.jsonl", generated)
    write_lines(tmp_path / "c.jsonl", choices)
    benchmarks = [
        {"name": kind, "path": str(tmp_path / "g.jsonl"), "kind": kind, "stop": ["<eos>"]}
        for kind in ("exact_match", "chrf", "bleu", "rouge_l")
    ]
    benchmarks[1]["group"] = "long_generation"
    benchmarks.append({"name": "mc", "path": str(tmp_path / "c.jsonl"), "kind": "multiple_choice"})
    card = _score(taught_path, tmp_path / "out", benchmarks=benchmarks)
    assert {score.name: score.group for score in card.scores} == {
        "exact_match.exact_match": "short_generation",
        "chrf.chrf": "long_generation",
        "bleu.bleu": "short_generation",
        "rouge_l.rouge_l": "short_generation",
        "mc.acc_norm": "multiple_choice",
    }
    values = {score.name: score.value for score in card.scores}
    assert values["exact_match.exact_match"] == 1
    assert values["chrf.chrf"] == pytest.approx(100)
    assert values["rouge_l.rouge_l"] == 1
    assert rescore(tmp_path / "out").scores == card.scores


def test_a_choice_that_is_too_long_for_the_model_is_reported(
    tiny_path: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": "a", "choices": ["b", "c" * length], "label": 0} for length in (1, 600)]
    path = write_lines(tmp_path / "mine.jsonl", rows)
    benchmarks = [{"name": "mine", "path": str(path), "kind": "multiple_choice"}]
    with pytest.raises(
        InputError, match=r"item 2 of mine has a choice of 601 tokens, but this model"
    ):
        _score(tiny_path, tmp_path / "out", benchmarks=benchmarks)


def test_invalid_items_are_reported_before_the_model_is_loaded(tmp_path: Path) -> None:
    root = write_data_root(tmp_path / "data")
    (root / "piqa/validation.jsonl").write_text('{"goal": "a"}\n')
    with pytest.raises(InputError, match=r"validation\.jsonl:1: label must be 0 or 1"):
        _score(tmp_path / "nowhere", tmp_path / "out", tasks=["piqa"], data_root=str(root))
