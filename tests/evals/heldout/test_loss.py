"""Held-out loss against a float64 reference."""

import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from evals.engine.batching import ignore_progress
from evals.engine.loaded_model import LoadedModel
from evals.engine.token_logprobs import TokenScorer
from evals.heldout.loss import evaluate_heldout_loss
from tests.evals.reference import token_losses
from tests.families import family
from trainers.data.examples import Example, Message, pair
from trainers.foundation.errors import TrainingError

CHATS = [
    Example(
        id=f"c:{number}",
        messages=(
            Message(role="system", content="You answer in one word and never in two of them."),
            Message(role="user", content="Hello."),
            Message(role="assistant", content="Good day."),
            Message(role="user", content=question),
            Message(role="assistant", content=answer),
        ),
    )
    for number, (question, answer) in enumerate(
        [
            ("What is the capital of France?", "Paris."),
            ("Sort!", "list.sort and nothing else, as you can see in the manual of Python"),
            ("Return the square root of a number, please, whatever it is.", "math.sqrt"),
            ("Join two paths.", "os.path.join"),
            ("é", "ü"),
        ]
    )
]


def test_losses_of_chats_equal_a_float64_reference(tiny_chat: LoadedModel) -> None:
    loaded = tiny_chat
    result = evaluate_heldout_loss(loaded, CHATS, batch_size=2, seed=0, on_progress=ignore_progress)

    completion_sum, completion_count, prompt_sum, prompt_count = 0.0, 0, 0.0, 0
    for chat in CHATS:
        prompt = loaded.template.encode_prompt(chat)
        completion = loaded.template.encode_completion(chat.completion)
        losses = token_losses(loaded.model, prompt + completion)
        completion_sum += sum(losses[len(prompt) :])
        completion_count += len(completion)
        prompt_sum += sum(losses[: len(prompt)])
        prompt_count += len(prompt) - 1
    by_name = {score.name: score for score in result.scores}
    completion_loss = by_name["heldout_completion_loss"]
    assert completion_loss.value == pytest.approx(completion_sum / completion_count, abs=1e-5)
    prompt_loss = by_name["heldout_prompt_loss"]
    assert prompt_loss.value == pytest.approx(prompt_sum / prompt_count, abs=1e-5)
    assert completion_loss.num_items == 5
    assert completion_loss.group is None
    assert not completion_loss.higher_is_better
    assert completion_loss.ci_low < completion_loss.value < completion_loss.ci_high


def test_a_uniform_model_has_the_logarithm_of_its_vocabulary_as_loss(
    load, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, tiny_config
) -> None:
    model = LlamaForCausalLM(tiny_config)
    model.lm_head.weight.data.zero_()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    result = evaluate_heldout_loss(
        load(tmp_path, "chat"), CHATS, batch_size=16, seed=0, on_progress=ignore_progress
    )
    losses = [score for score in result.scores if score.unit == "nats per token"]
    assert len(losses) == 6
    for score in losses:
        assert score.value == pytest.approx(math.log(len(tokenizer)), abs=1e-5)
        # All examples have the same loss, so the error is unknown.
        assert score.standard_error is None
        assert score.ci_low is None


def test_the_loss_is_weighted_by_tokens_not_by_examples(tiny_chat: LoadedModel) -> None:
    result = evaluate_heldout_loss(
        tiny_chat, CHATS, batch_size=16, seed=0, on_progress=ignore_progress
    )
    sums = [sample["loss_sum"]["completion"] for sample in result.samples]
    counts = [sample["num_tokens"]["completion"] for sample in result.samples]
    assert result.scores[0].value == sum(sums) / sum(counts)
    assert [sample["value"] for sample in result.samples] == pytest.approx(
        [total / count for total, count in zip(sums, counts, strict=True)]
    )


def test_tokens_are_counted_by_role(tiny_chat: LoadedModel) -> None:
    loaded = tiny_chat
    result = evaluate_heldout_loss(
        loaded, CHATS[:1], batch_size=16, seed=0, on_progress=ignore_progress
    )
    sample = result.samples[0]
    # <|system|> is the first token, has no prediction and does not count; <eos>, <|user|>, <eos>,
    # <|assistant|>, <eos>, <|user|>, <eos> and <|assistant|> do.
    assert sample["num_tokens"]["template"] == 8
    encoded = loaded.template.encode(CHATS[0], 128)
    assert sum(sample["num_tokens"].values()) == len(encoded.input_ids) - 1
    assert sample["prompt"] == (
        "<|system|>You answer in one word and never in two of them.<eos><|user|>Hello.<eos>"
        "<|assistant|>Good day.<eos><|user|>What is the capital of France?<eos><|assistant|>"
    )
    assert sample["target"] == "Paris."


def test_bits_per_byte_exclude_special_tokens(
    tiny_chat: LoadedModel,
) -> None:
    loaded = tiny_chat
    result = evaluate_heldout_loss(loaded, CHATS, batch_size=2, seed=0, on_progress=ignore_progress)

    bits = {"completion": 0.0, "prompt": 0.0}
    num_bytes = {"completion": 0, "prompt": 0}
    for chat in CHATS:
        prompt = loaded.template.encode_prompt(chat)
        ids = prompt + loaded.template.encode_completion(chat.completion)
        losses = token_losses(loaded.model, ids)
        for position, (token, loss) in enumerate(zip(ids, losses, strict=True)):
            # The first five are special: padding, end and roles.
            if token >= 5:
                bits["prompt" if position < len(prompt) else "completion"] += loss / math.log(2)
        num_bytes["completion"] += len(chat.completion.encode())
        num_bytes["prompt"] += sum(len(m.content.encode()) for m in chat.messages[:-1])
    by_name = {score.name: score for score in result.scores}
    for side in ("completion", "prompt"):
        score = by_name[f"heldout_{side}_bits_per_byte"]
        assert score.value == pytest.approx(bits[side] / num_bytes[side], abs=1e-5)
        assert score.ci_low < score.value < score.ci_high
        assert (score.unit, score.group, score.num_items) == ("bits per byte", None, 5)
    last = result.samples[-1]
    assert (last["target"], last["num_bytes"]["completion"]) == ("ü", 2)
    assert last["num_bytes"]["template"] == 0


def test_each_role_of_a_prompt_has_its_loss(tiny_chat: LoadedModel) -> None:
    result = evaluate_heldout_loss(
        tiny_chat, CHATS, batch_size=2, seed=0, on_progress=ignore_progress
    )
    by_name = {score.name: score.value for score in result.scores}
    for role in ("system", "user", "template"):
        sums = [sample["loss_sum"][role] for sample in result.samples]
        counts = [sample["num_tokens"][role] for sample in result.samples]
        assert by_name[f"heldout_{role}_loss"] == pytest.approx(sum(sums) / sum(counts))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_does_not_change_the_loss(tiny_chat: LoadedModel, batch_size: int) -> None:
    one = evaluate_heldout_loss(
        tiny_chat, CHATS, batch_size=16, seed=0, on_progress=ignore_progress
    )
    other = evaluate_heldout_loss(
        tiny_chat, CHATS, batch_size=batch_size, seed=0, on_progress=ignore_progress
    )
    for a, b in zip(one.scores, other.scores, strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-5)


def test_a_truncated_prompt_counts_its_remaining_tokens(load, tiny_path: Path) -> None:
    loaded: LoadedModel = load(tiny_path, max_length=16)
    long_prompt = pair("l:1", prompt="number " * 50, completion="Paris.")
    result = evaluate_heldout_loss(
        loaded, [long_prompt], batch_size=1, seed=0, on_progress=ignore_progress
    )
    sample = result.samples[0]
    assert sum(sample["num_tokens"].values()) == 15
    assert sample["num_truncated_tokens"] > 30


def test_a_side_without_tokens_has_no_score(load, tiny_path: Path) -> None:
    loaded: LoadedModel = load(tiny_path, max_length=2)
    endless = pair("e:1", prompt="Sort!", completion="number " * 50)
    result = evaluate_heldout_loss(
        loaded, [endless], batch_size=1, seed=0, on_progress=ignore_progress
    )
    assert [score.name for score in result.scores] == [
        "heldout_completion_loss",
        "heldout_completion_bits_per_byte",
    ]
    assert result.samples[0]["num_tokens"]["completion"] == 1


def test_weights_that_are_not_finite_are_an_error(
    load, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, tiny_config
) -> None:
    model = LlamaForCausalLM(tiny_config)
    model.model.norm.weight.data.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(TrainingError, match="not finite"):
        evaluate_heldout_loss(
            load(tmp_path, "chat"), CHATS, batch_size=2, seed=0, on_progress=ignore_progress
        )


@pytest.mark.parametrize(
    ("name", "logits_are_head_output"),
    [
        ("llama", True),
        ("mistral", True),
        ("gpt2", True),
        ("gpt_neo", True),
        ("mamba", True),
        ("gemma2", False),
        ("cohere", False),
        ("granite", False),
    ],
)
def test_log_probabilities_are_correct_for_every_family(
    name: str, logits_are_head_output: bool
) -> None:
    model = family(name)
    scorer = TokenScorer(model)
    assert scorer.logits_are_head_output is logits_are_head_output
    generator = torch.Generator().manual_seed(0)
    prefix = torch.randint(2, 64, (30,), generator=generator).tolist()
    sequences = [
        prefix + torch.randint(2, 64, (length,), generator=generator).tolist()
        for length in (9, 3, 6)
    ]
    log_probs_BT = scorer.sequence_log_probs(sequences, [1, 33, 20])
    assert log_probs_BT.shape == (3, 39)
    for row, ids, first in zip(log_probs_BT.tolist(), sequences, [1, 33, 20], strict=True):
        expected = [-loss for loss in token_losses(model, ids)]
        expected = [0.0] * first + expected[first:] + [0.0] * (39 - len(ids))
        assert row == pytest.approx(expected, abs=1e-4)


def test_logits_are_computed_for_scored_tokens_only_and_once_for_a_shared_prefix() -> None:
    model = family("llama")
    scorer = TokenScorer(model)
    num_rows: list[int] = []
    model.lm_head.register_forward_hook(
        lambda module, inputs, logits: num_rows.append(logits.numel() // logits.shape[-1])
    )
    prefix = list(range(2, 52))
    scorer.sequence_log_probs([[*prefix, 7, 8, 9], [*prefix, 9], [*prefix, 3, 2]], [1] * 3)
    # 49 tokens of the prefix, then 3, 1 and 2.
    assert sum(num_rows) == 55
