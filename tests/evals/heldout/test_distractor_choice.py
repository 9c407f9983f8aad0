"""Multiple choice on held-out examples."""

from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from evals.config import DistractorChoiceConfig
from evals.engine.batching import ignore_progress
from evals.engine.loaded_model import LoadedModel
from evals.heldout.distractor_choice import evaluate_choice
from evals.heldout.examples import ChoiceItem, choice_items
from tests.evals.reference import choice_log_likelihood
from trainers.data.examples import Example, pair


def test_a_model_trained_on_the_answers_ranks_them_first(
    taught: LoadedModel, facts: list[Example]
) -> None:
    items = choice_items(facts, DistractorChoiceConfig(examples=4, choices=4), seed=0)
    result = evaluate_choice(taught, items, batch_size=3, on_progress=ignore_progress)
    (score,) = result.scores
    assert score.name == "heldout.choice"
    assert score.group == "heldout"
    assert score.value == 1.0
    assert score.num_items == 4
    assert score.standard_error is None
    assert score.ci_low == pytest.approx(0.5101, abs=1e-4)
    assert score.ci_high == 1.0
    assert [sample["output"] for sample in result.samples] == [
        "math.sqrt",
        "os.path.join",
        "Paris.",
        "list.sort",
    ]


def test_scores_are_divided_by_bytes_and_exclude_the_end_token(
    tiny: LoadedModel,
) -> None:
    example = pair("q:1", prompt="What?", completion="é")
    item = ChoiceItem(example=example, choices=("é", "list.sort"))
    result = evaluate_choice(tiny, [item], batch_size=1, on_progress=ignore_progress)
    true, other = result.samples[0]["choices"]
    prompt = tiny.template.encode_prompt(example)
    for choice, num_bytes in ((true, 2), (other, 9)):
        ids = tiny.tokenizer(choice["text"], add_special_tokens=False)["input_ids"]
        expected = choice_log_likelihood(tiny.model, prompt, ids)
        assert choice["num_bytes"] == num_bytes
        assert choice["num_tokens"] == len(ids)
        assert choice["log_likelihood"] == pytest.approx(expected, abs=1e-4)
        assert choice["log_likelihood_per_byte"] == choice["log_likelihood"] / num_bytes


def test_a_tie_counts_as_wrong(
    load, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, tiny_config
) -> None:
    model = LlamaForCausalLM(tiny_config)
    model.lm_head.weight.data.zero_()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    item = ChoiceItem(example=pair("q:1", prompt="?", completion="x"), choices=("x", "y"))
    result = evaluate_choice(load(tmp_path), [item], batch_size=1, on_progress=ignore_progress)
    assert result.scores[0].value == 0.0


def test_long_prompts_are_cut_on_the_left_and_long_choices_on_the_right(
    load, tiny_path: Path
) -> None:
    loaded: LoadedModel = load(tiny_path, max_length=12)
    example = pair("q:1", prompt="a b c d e f g h i j k l m n", completion="x " * 30)
    item = ChoiceItem(example=example, choices=(example.completion, "y"))
    result = evaluate_choice(loaded, [item], batch_size=1, on_progress=ignore_progress)
    sample = result.samples[0]
    true, other = sample["choices"]
    assert sample["prompt"] == "\n"
    assert true["num_tokens"] == 11
    assert true["num_bytes"] == len(
        loaded.decode(loaded.template.encode_completion(example.completion)[:11])
    )
    assert (other["num_tokens"], other["num_bytes"]) == (1, 1)
