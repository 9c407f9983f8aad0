"""Generation on held-out examples, against the true completions."""

import json
import shutil
from pathlib import Path

import pytest

from evals.config import GenerationConfig
from evals.engine.batching import ignore_progress
from evals.engine.loaded_model import LoadedModel
from evals.heldout.reference_match import evaluate_chrf, evaluate_exact_match
from trainers.data.examples import Example, pair
from trainers.foundation.errors import InputError


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_trained_on_the_answers_generates_them(
    taught: LoadedModel, facts: list[Example], batch_size: int
) -> None:
    result = evaluate_exact_match(
        taught,
        facts,
        GenerationConfig(max_new_tokens=16),
        batch_size=batch_size,
        on_progress=ignore_progress,
    )
    (score,) = result.scores
    assert (score.name, score.group, score.value, score.num_items) == (
        "heldout.exact_match",
        "heldout",
        1.0,
        4,
    )
    assert [sample["output"] for sample in result.samples] == [
        "math.sqrt",
        "os.path.join",
        "Paris.",
        "list.sort",
    ]
    assert all(sample["stopped"] for sample in result.samples)
    assert result.samples[2]["prompt"] == "What is the capital of France?\n\n"


def test_inverted_examples_generate_the_prompt(taught: LoadedModel, facts: list[Example]) -> None:
    result = evaluate_chrf(
        taught,
        facts,
        GenerationConfig(max_new_tokens=48, invert=True),
        batch_size=4,
        seed=0,
        on_progress=ignore_progress,
    )
    (score,) = result.scores
    assert (score.name, score.group, score.unit) == (
        "heldout.chrf",
        "heldout",
        "chrF",
    )
    assert score.value == 100
    assert result.samples[1]["prompt"] == "os.path.join\n\n"
    assert result.samples[1]["output"] == result.samples[1]["target"] == "Join two paths."
    assert result.signature["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no")


def test_exact_match_ignores_surrounding_space_only(taught: LoadedModel) -> None:
    question = "What is the capital of France?"
    examples = [
        pair("x:1", prompt=question, completion="  Paris.\n"),
        pair("x:2", prompt=question, completion="paris."),
        pair("x:3", prompt=question, completion="Paris"),
    ]
    result = evaluate_exact_match(
        taught,
        examples,
        GenerationConfig(max_new_tokens=8),
        batch_size=3,
        on_progress=ignore_progress,
    )
    assert [sample["value"] for sample in result.samples] == [1.0, 0.0, 0.0]


def test_an_output_without_end_token_is_cut_and_marked(
    taught: LoadedModel, facts: list[Example]
) -> None:
    result = evaluate_exact_match(
        taught,
        facts[:1],
        GenerationConfig(max_new_tokens=2),
        batch_size=1,
        on_progress=ignore_progress,
    )
    sample = result.samples[0]
    assert (sample["stopped"], sample["num_new_tokens"], sample["value"]) == (False, 2, 0.0)


def test_the_sampling_settings_of_a_checkpoint_are_ignored(
    load, taught_path: Path, tmp_path: Path, facts: list[Example], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sampling"
    shutil.copytree(taught_path, path)
    (path / "generation_config.json").write_text(
        json.dumps(
            {
                "do_sample": True,
                "temperature": 9.0,
                "top_k": 50,
                "top_p": 0.9,
                "repetition_penalty": 5.0,
                "min_new_tokens": 10,
                "num_beams": 3,
                "max_length": 5,
                "eos_token_id": 1,
            }
        )
    )
    result = evaluate_exact_match(
        load(path), facts, GenerationConfig(max_new_tokens=16), batch_size=4,
        on_progress=ignore_progress,
    )  # fmt: skip
    assert result.scores[0].value == 1.0
    assert capfd.readouterr() == ("", "")


def test_a_long_prompt_is_cut_on_the_left(load, taught_path: Path) -> None:
    loaded: LoadedModel = load(taught_path, max_length=10)
    example = pair("l:1", prompt="number " * 40, completion="x")
    result = evaluate_exact_match(
        loaded,
        [example],
        GenerationConfig(max_new_tokens=2),
        batch_size=1,
        on_progress=ignore_progress,
    )
    sample = result.samples[0]
    assert len(loaded.tokenizer(sample["prompt"])["input_ids"]) == 10
    assert sample["prompt"].endswith("number \n\n")
    assert sample["num_truncated_tokens"] > 0


def test_prompts_are_cut_if_positions_do_not_suffice_for_the_output(
    load, taught_path: Path
) -> None:
    loaded: LoadedModel = load(taught_path, max_length=512)
    example = pair("l:1", prompt="Z " * 600, completion="x")
    result = evaluate_exact_match(
        loaded, [example], GenerationConfig(max_new_tokens=500), batch_size=1,
        on_progress=ignore_progress,
    )  # fmt: skip
    prompt = loaded.template.encode_prompt(example)
    assert result.samples[0]["num_truncated_tokens"] == len(prompt) - 12
    with pytest.raises(InputError, match=r"max_new_tokens of heldout.exact_match must be less"):
        evaluate_exact_match(
            loaded, [example], GenerationConfig(max_new_tokens=512), batch_size=1,
            on_progress=ignore_progress,
        )  # fmt: skip
