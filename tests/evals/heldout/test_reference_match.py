import json
import shutil
from pathlib import Path

import pytest

from evals.config import GenerationConfig
from evals.engine.loading import LoadedModel
from evals.heldout.reference_match import measure_long_generation, measure_short_generation
from tests.evals.reference import no_progress
from trainers.data.examples import Example, pair
from trainers.foundation.errors import InputError


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_that_knows_the_answers_writes_them(
    taught: LoadedModel, facts: list[Example], batch_size: int
) -> None:
    measured = measure_short_generation(
        taught,
        facts,
        GenerationConfig(max_new_tokens=16),
        batch_size=batch_size,
        on_progress=no_progress,
    )
    (score,) = measured.scores
    assert (score.name, score.group, score.value, score.num_items) == (
        "short_generation_exact_match",
        "short_generation",
        1.0,
        4,
    )
    assert [sample["output"] for sample in measured.samples] == [
        "math.sqrt",
        "os.path.join",
        "Paris.",
        "list.sort",
    ]
    assert all(sample["stopped"] for sample in measured.samples)
    assert measured.samples[2]["prompt"] == "What is the capital of France?\n\n"


def test_inverted_pairs_ask_for_the_prompt(taught: LoadedModel, facts: list[Example]) -> None:
    measured = measure_long_generation(
        taught,
        facts,
        GenerationConfig(max_new_tokens=48, invert=True),
        batch_size=4,
        seed=0,
        on_progress=no_progress,
    )
    (score,) = measured.scores
    assert (score.name, score.group, score.unit) == (
        "long_generation_chrf",
        "long_generation",
        "chrF",
    )
    assert score.value == 100
    assert measured.samples[1]["prompt"] == "os.path.join\n\n"
    assert measured.samples[1]["output"] == measured.samples[1]["target"] == "Join two paths."
    assert measured.signature["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no")


def test_exact_match_forgives_space_around_and_nothing_else(taught: LoadedModel) -> None:
    question = "What is the capital of France?"
    asked = [
        pair("x:1", prompt=question, completion="  Paris.\n"),
        pair("x:2", prompt=question, completion="paris."),
        pair("x:3", prompt=question, completion="Paris"),
    ]
    measured = measure_short_generation(
        taught, asked, GenerationConfig(max_new_tokens=8), batch_size=3, on_progress=no_progress
    )
    assert [sample["value"] for sample in measured.samples] == [1.0, 0.0, 0.0]


def test_an_output_that_does_not_end_is_cut_and_marked(
    taught: LoadedModel, facts: list[Example]
) -> None:
    measured = measure_short_generation(
        taught, facts[:1], GenerationConfig(max_new_tokens=2), batch_size=1, on_progress=no_progress
    )
    sample = measured.samples[0]
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
    measured = measure_short_generation(
        load(path), facts, GenerationConfig(max_new_tokens=16), batch_size=4,
        on_progress=no_progress,
    )  # fmt: skip
    assert measured.scores[0].value == 1.0
    assert capfd.readouterr() == ("", "")


def test_a_long_prompt_loses_its_left(load, taught_path: Path) -> None:
    loaded: LoadedModel = load(taught_path, max_length=10)
    asked = pair("l:1", prompt="number " * 40, completion="x")
    measured = measure_short_generation(
        loaded, [asked], GenerationConfig(max_new_tokens=2), batch_size=1, on_progress=no_progress
    )
    sample = measured.samples[0]
    assert len(loaded.tokenizer(sample["prompt"])["input_ids"]) == 10
    assert sample["prompt"].endswith("number \n\n")
    assert sample["num_truncated_tokens"] > 0


def test_prompts_make_room_for_the_output_where_positions_are_few(load, taught_path: Path) -> None:
    loaded: LoadedModel = load(taught_path, max_length=512)
    asked = pair("l:1", prompt="Z " * 600, completion="x")
    measured = measure_short_generation(
        loaded, [asked], GenerationConfig(max_new_tokens=500), batch_size=1,
        on_progress=no_progress,
    )  # fmt: skip
    prompt = loaded.template.encode_prompt(asked)
    assert measured.samples[0]["num_truncated_tokens"] == len(prompt) - 12
    with pytest.raises(InputError, match=r"short_generation\.max_new_tokens must leave"):
        measure_short_generation(
            loaded, [asked], GenerationConfig(max_new_tokens=512), batch_size=1,
            on_progress=no_progress,
        )  # fmt: skip
