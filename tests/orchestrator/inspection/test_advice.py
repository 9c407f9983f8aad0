"""Tests of the predicted PLW in `plw data stats`, and of the spec that it writes."""

import json
from pathlib import Path

import pytest

from orchestrator.inspection.advice import Advice, advise
from orchestrator.plan.sweep_plan import make_plan
from orchestrator.spec.sweep_spec import load_spec
from tests.orchestrator.plw import plw, plw_json, refused
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_tokenizer import tiny_tokenizer
from trainers.data.examples import Example, pair
from trainers.data.length_stats import DataStats, compute_data_stats
from trainers.data.tokenize import encode_examples
from trainers.data_config import DataConfig

# One token per character, one more at the end of a completion, two for the template's blank line.
SHORT = [pair(str(i), prompt="Q" * 20, completion="k" * 4) for i in range(4)]
LONG = [pair(str(i), prompt="Q" * 8, completion="k" * 29) for i in range(4)]


def stats_of(examples: list[Example]) -> DataStats:
    config = DataConfig(path="data.jsonl", template="plain", max_length=100)
    return compute_data_stats(encode_examples(examples, config, tiny_tokenizer()), config)


def advice_for(examples: list[Example]) -> Advice:
    return advise(stats_of(examples))


def test_the_prediction_for_short_completions_is_0_242() -> None:
    advice = advice_for(SHORT)
    assert advice.kind == "short"
    assert advice.best_prompt_loss_weight == 0.242
    assert advice.prompt_loss_weights == [0, 0.01, 0.1, 0.242, 0.5, 1]


def test_no_effect_is_predicted_for_long_completions() -> None:
    advice = advice_for(LONG)
    assert advice.kind == "long"
    assert advice.best_prompt_loss_weight is None
    assert advice.prompt_loss_weights == [0, 0.1, 1]
    assert "no relation" in advice.prediction[0]


def test_data_with_ratios_on_both_sides_of_1_is_between() -> None:
    # 4 completion tokens over 5 with the template, over 3 without it.
    advice = advice_for([pair("a", prompt="QQQ", completion="kkk")])
    assert advice.kind == "between"
    assert "only some of its four definitions" in advice.prediction[0]
    assert advice.best_prompt_loss_weight == 0.242


def test_mixed_data_has_a_note() -> None:
    # Four examples at 30 / 10, two at 5 / 22: long by each definition, a third of them short.
    advice = advice_for([*LONG, *SHORT[:2]])
    assert advice.kind == "long"
    assert any("33% of the examples" in limit for limit in advice.limits)


def test_the_completion_share_falls_with_the_weight() -> None:
    # 5 completion tokens and 22 prompt tokens.
    shares = {s.prompt_loss_weight: s.share for s in advice_for(SHORT).completion_shares}
    assert shares[0] == 1
    assert shares[0.5] == pytest.approx(5 / 16)
    assert shares[1] == pytest.approx(5 / 27)


def write_pairs(path: Path, count: int, *, completions: int | None = None) -> Path:
    rows = [
        {"prompt": f"What is {i} and {i}?", "completion": str(2 * (i % (completions or count)))}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("count", [2, 11, 60])
@pytest.mark.parametrize("template", ["plain", "chat", "alpaca"])
def test_the_written_spec_can_be_planned(tmp_path: Path, template: str, count: int) -> None:
    model = save_tiny_model(tmp_path / "model")
    data = write_pairs(tmp_path / "data.jsonl", count)
    spec = tmp_path / "try.yaml"
    options = ("--model", model, "--template", template, "--max-length", 300)
    output = plw("data", "stats", data, *options, "--spec", spec).output
    assert output.endswith(f"wrote {spec}\nnext: plw plan {spec}\n")
    loaded = load_spec(spec, [f"output_dir={tmp_path / 'runs'}"])
    assert (loaded.data.template, loaded.data.max_length) == (template, 300)
    plan = make_plan(loaded).plan
    weights = {trial.searched["loss.prompt_loss_weight"] for trial in plan.trials}
    assert weights == {0, 0.01, 0.1, 0.242, 0.5, 1}
    assert len(plan.trials) == 18


def test_a_spec_for_data_with_one_completion_has_no_multiple_choice(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    data = write_pairs(tmp_path / "data.jsonl", 20, completions=1)
    spec = tmp_path / "try.yaml"
    plw("data", "stats", data, "--model", model, "--template", "plain", "--spec", spec)
    assert load_spec(spec).evals.heldout_choice is None


def test_a_spec_holds_out_a_fifth_of_the_chats_also_if_each_turn_is_an_example(
    tmp_path: Path,
) -> None:
    turns = [
        {"role": role, "content": f"{role} {i}"} for i in range(3) for role in ("user", "assistant")
    ]
    chats = [
        {"messages": [*turns[:-2], {**turns[-2], "content": f"Q{i}"}, turns[-1]]} for i in range(30)
    ]
    data = tmp_path / "chats.jsonl"
    data.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    options = (
        "--model",
        save_tiny_model(tmp_path / "model"),
        "--set",
        "data.completion_turns=each",
    )
    spec = tmp_path / "try.yaml"
    plw("data", "stats", data, *options, "--spec", spec)
    assert load_spec(spec).data.heldout_examples == 6


def test_a_spec_and_its_plan_have_the_number_that_the_split_holds_out(tmp_path: Path) -> None:
    # Groups of 5 examples with the same prompt: 2 of 12 groups are held out, not 12 examples.
    rows = [{"prompt": f"Q{i % 12}", "completion": f"A{i}"} for i in range(60)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = tmp_path / "try.yaml"
    options = ("--model", save_tiny_model(tmp_path / "model"), "--template", "plain")
    plw("data", "stats", data, *options, "--spec", spec)
    assert load_spec(spec).data.heldout_examples == 10
    output = plw("plan", spec).output
    assert "training: 50 examples, none longer than" in output
    assert "held out: 10 examples\n" in output
    reason = (
        "held out: 10 examples, not the 12 of data.heldout_examples: examples with the same prompt"
        " are either all held out or all used for training\n"
    )
    assert reason in plw("plan", spec, "--set", "data.heldout_examples=12").output


@pytest.mark.parametrize(
    ("has_gpu", "precision"),
    [(True, "bfloat16"), (False, "float32 # bfloat16 on GPUs; this machine has none")],
)
def test_a_spec_has_the_precision_of_the_machine_and_the_papers_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_gpu: bool, precision: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": f"Q{i:02}", "completion": f"k{i:02}"} for i in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = tmp_path / "try.yaml"
    options = ("--model", save_tiny_model(tmp_path / "model"), "--template", "plain")
    plw("data", "stats", data, *options, "--spec", spec)
    text = " ".join(spec.read_text().split())
    assert f" precision: {precision}" in text
    # 4 completion tokens over 5 with the template, over 3 without it.
    assert (
        "# Neither clearly short- nor long-completion data: R_g (completion over prompt tokens)"
        " below 1 is short. # With the template's tokens in the prompt: 0.8 (ratio of means), 0.8"
        " (mean of ratios); # without them: 1.33 (ratio of means), 1.33 (mean of ratios)."
    ) in text


def test_an_existing_spec_is_not_overwritten_without_force(tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text("mine")
    output = refused("data", "stats", "d.jsonl", "--spec", spec)
    assert output == (f"error: {spec}: file exists; use --force to overwrite")
    assert spec.read_text() == "mine"


def test_json_has_stats_spread_and_advice(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    data = write_pairs(tmp_path / "data.jsonl", 10)
    found = plw_json("data", "stats", data, "--model", model, "--template", "plain")
    assert found["num_examples"] == 10
    assert found["generation_ratio"]["spread"]["share_below_one"] == 1
    assert found["advice"]["kind"] == "short"
    assert found["spec"] is None
