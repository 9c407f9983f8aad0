import json
import shutil
from pathlib import Path

import pytest

from evals.config import GenerationConfig
from evals.generate import generate, measure_long_generation, measure_short_generation
from evals.model import LoadedModel
from tests.evals.reference import no_progress
from trainers.errors import InputError
from trainers.examples import Example, Message, pair


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


def test_a_shared_beginning_changes_no_output(load, tiny_path: Path) -> None:
    loaded: LoadedModel = load(tiny_path, "chat", 256)
    system = Message(role="system", content="You answer in one word and never in two of them.")
    prompts = [
        loaded.template.encode_prompt(
            Example(
                id=str(number),
                messages=(
                    system,
                    Message(role="user", content=question),
                    Message(role="assistant", content=""),
                ),
            )
        )
        for number, question in enumerate(["Sort!", "What is the capital of France?", "Join it"])
    ]
    num_tokens: list[int] = []
    hook = loaded.model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: num_tokens.append(inputs[0].numel())
    )
    together = generate(loaded, prompts, max_new_tokens=12, batch_size=3, on_progress=no_progress)
    hook.remove()
    alone = [
        generate(loaded, [prompt], max_new_tokens=12, batch_size=1, on_progress=no_progress)[0]
        for prompt in prompts
    ]
    assert together == alone
    # First what all three begin with, in a pass of one row.
    assert num_tokens[0] > 24
    assert num_tokens[0] == len(_common(prompts))


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


def test_every_end_token_that_the_checkpoint_names_ends_an_output(
    load, taught_path: Path, tmp_path: Path, facts: list[Example]
) -> None:
    path = tmp_path / "ends"
    shutil.copytree(taught_path, path)
    # As if the first token of "math.sqrt" ended a turn.
    first = load(path).tokenizer("math.sqrt", add_special_tokens=False)["input_ids"][0]
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [first, 1]}))
    loaded: LoadedModel = load(path)
    outputs = generate(
        loaded,
        [loaded.template.encode_prompt(fact) for fact in facts[:2]],
        max_new_tokens=16,
        batch_size=2,
        on_progress=no_progress,
    )
    assert outputs[0] == []
    assert loaded.decode(outputs[1]) == "os.path.join"


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


def _common(sequences: list[list[int]]) -> list[int]:
    common = []
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    return common
