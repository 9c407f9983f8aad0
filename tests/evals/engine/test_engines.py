"""The contract of generation engines: each gives the outputs of transformers' own `generate`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma4ForCausalLM, Gemma4TextConfig, GenerationConfig, LlamaConfig

from evals.engine.batching import ignore_progress
from evals.engine.continuous_batches import (
    ContinuousBatches,
    check_continuous,
    continuous_problem,
)
from evals.engine.continuous_or_padded import ContinuousOrPadded
from evals.engine.generation import generate
from evals.engine.loaded_model import GenerationEngine, LoadedModel
from evals.engine.loading import load_model
from evals.engine.padded_batches import PaddedBatches, cache_bytes_per_token, rows_that_fit
from evals.engine.token_logprobs import TokenScorer
from tests.families import family
from trainers.foundation.errors import InputError, TrainingError

ENGINES: dict[str, Callable[[], GenerationEngine]] = {
    "padded": PaddedBatches,
    "continuous": ContinuousBatches,
}
# Lengths from one token to more than a page of keys and values; two prompts are equal.
PROMPTS = [[9], [5, 6, 7], [5, 6, 7], [40, *range(20, 50)], [30 + n % 200 for n in range(70)]]


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> GenerationEngine:
    return ENGINES[request.param]()


def reference(loaded: LoadedModel, prompt: list[int], max_new_tokens: int) -> list[int]:
    """Return transformers' greedy output of one prompt, without padding, up to the end token."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=loaded.eos_token_ids
    )
    config.pad_token_id = 0
    ids = torch.tensor([prompt])
    model = loaded.model
    output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    new: list[int] = output[0, len(prompt) :].tolist()
    ends = [place for place, token in enumerate(new) if token in loaded.eos_token_ids]
    return new[: ends[0]] if ends else new


def test_outputs_equal_those_of_transformers_one_by_one(
    tiny: LoadedModel, engine: GenerationEngine
) -> None:
    loaded = replace(tiny, engine=engine)
    expected = [reference(loaded, prompt, 12) for prompt in PROMPTS]
    reported: list[tuple[int, list[int]]] = []
    counts: list[tuple[int, int]] = []
    found = generate(
        loaded,
        PROMPTS,
        max_new_tokens=12,
        batch_size=2,
        on_progress=lambda done, total: counts.append((done, total)),
        on_output=lambda place, output: reported.append((place, output)),
    )
    assert found == expected
    assert sorted(reported) == list(enumerate(expected))
    assert counts == [(done, 5) for done in range(1, 6)]


def test_outputs_end_before_an_end_token(tiny: LoadedModel, engine: GenerationEngine) -> None:
    whole = [reference(tiny, prompt, 12) for prompt in PROMPTS]
    # The first token of one output, and the sixth of another.
    ends = [*tiny.eos_token_ids, whole[0][0], whole[4][5]]
    loaded = replace(tiny, engine=engine, eos_token_ids=ends)
    expected = [reference(loaded, prompt, 12) for prompt in PROMPTS]
    assert expected[0] == []
    assert len({len(output) for output in expected}) > 2
    found = generate(
        loaded, PROMPTS, max_new_tokens=12, batch_size=None, on_progress=ignore_progress
    )
    assert found == expected


def test_outputs_end_after_a_stop_string(tiny: LoadedModel, engine: GenerationEngine) -> None:
    whole = [reference(tiny, prompt, 12) for prompt in PROMPTS]
    stop = tiny.decode(whole[3][4:6])
    found = generate(
        replace(tiny, engine=engine),
        PROMPTS,
        max_new_tokens=12,
        batch_size=None,
        on_progress=ignore_progress,
        stop_strings=[stop],
    )
    assert found[3] == whole[3][:6]
    for output, long in zip(found, whole, strict=True):
        assert output == long[: len(output)]
        assert (stop in tiny.decode(output)) == (stop in tiny.decode(long))
        # An output has no token after the one that completes the stop string.
        assert stop not in tiny.decode(output[:-1])


def test_no_prompts_give_no_outputs(tiny: LoadedModel, engine: GenerationEngine) -> None:
    loaded = replace(tiny, engine=engine)
    assert generate(loaded, [], max_new_tokens=4, batch_size=1, on_progress=ignore_progress) == []


def test_a_model_that_has_diverged_is_reported(
    load: Callable[..., LoadedModel], tiny_path: Path, engine: GenerationEngine
) -> None:
    loaded = replace(load(tiny_path), engine=engine)
    loaded.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="log-probabilities are not finite") as raised:
        generate(loaded, [[5, 6, 7]], max_new_tokens=2, batch_size=1, on_progress=ignore_progress)
    assert raised.value.kind == "divergence"


@pytest.mark.parametrize("name", ["mistral", "qwen3", "gpt2", "granite", "cohere", "gemma2"])
def test_families_with_windows_and_scaled_logits(
    tiny: LoadedModel, engine: GenerationEngine, name: str
) -> None:
    model = family(name)
    if engine.name == "continuous" and continuous_problem(model) is not None:
        pytest.skip("not supported by continuous batching")
    loaded = replace(tiny, model=model, scorer=TokenScorer(model), engine=engine, eos_token_ids=[1])
    prompts = [[token % 60 + 2 for token in prompt] for prompt in PROMPTS]
    expected = [reference(loaded, prompt, 8) for prompt in prompts]
    found = generate(
        loaded, prompts, max_new_tokens=8, batch_size=None, on_progress=ignore_progress
    )
    assert found == expected


def test_models_that_continuous_batching_cannot_run_are_rejected() -> None:
    with pytest.raises(InputError, match=r"evals.engine: continuous batching cannot run Mamba"):
        check_continuous(family("mamba"))
    with pytest.raises(InputError, match="it caps attention logits, which needs flash attention"):
        check_continuous(family("gemma2"))


def test_a_failed_step_of_the_continuous_engine_is_reported(
    load: Callable[..., LoadedModel], tiny_path: Path
) -> None:
    loaded = replace(load(tiny_path), engine=ContinuousBatches())

    def fail(*_: object) -> None:
        raise RuntimeError("no kernel image is available")

    loaded.model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(
        TrainingError,
        match=r"continuous batching failed: no kernel image is available; evals.engine: padded",
    ):
        generate(loaded, [[5, 6]], max_new_tokens=2, batch_size=1, on_progress=ignore_progress)


@pytest.mark.parametrize("fails_at", ["the start", "a later step"])
def test_the_automatic_engine_continues_in_padded_batches(
    load: Callable[..., LoadedModel],
    tiny_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fails_at: str,
) -> None:
    loaded = replace(load(tiny_path), engine=ContinuousOrPadded())
    expected = [reference(loaded, prompt, 12) for prompt in PROMPTS]
    tries: list[str] = []
    begin = loaded.model.init_continuous_batching

    def fail_at_start(**settings: Any) -> Any:
        tries.append(fails_at)
        if fails_at == "the start":
            raise ValueError("no such attention")
        return begin(**settings)

    def fail_later(module: Any, arguments: Any, settings: dict[str, Any]) -> None:
        paged = settings.get("cache") is not None
        calls.append(paged)
        if paged and sum(calls) == 20:
            raise RuntimeError("no kernel image is available")

    calls: list[bool] = []
    monkeypatch.setattr(loaded.model, "init_continuous_batching", fail_at_start)
    if fails_at != "the start":
        layer = loaded.model.model.layers[1]
        layer.register_forward_pre_hook(fail_later, with_kwargs=True)
    for _ in range(2):
        found = generate(
            loaded, PROMPTS, max_new_tokens=12, batch_size=2, on_progress=ignore_progress
        )
        assert found == expected
    assert len(tries) == 1
    assert "outputs are generated in padded batches" in caplog.text


def test_the_engine_is_chosen_by_name_and_by_device(tiny_path: Path) -> None:
    def name(engine: str) -> str:
        loaded = load_model(tiny_path, template="plain", max_length=64, engine=engine)  # type: ignore[arg-type]
        return loaded.engine.name

    assert [name(engine) for engine in ("auto", "padded", "continuous")] == [
        "padded" if not torch.cuda.is_available() else "auto",
        "padded",
        "continuous",
    ]


def test_rows_of_a_batch_fit_into_the_memory_of_the_device() -> None:
    # Llama 2 7B in bfloat16: 2 x 32 layers x 4096 x 2 bytes.
    config = LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32)
    assert cache_bytes_per_token(config, torch.bfloat16) == 524288
    # 1,024 tokens for each row: 0.5 GiB.
    row_bytes = 1024 * 524288
    assert rows_that_fit(row_bytes, 120 * 2**30) == 128
    assert rows_that_fit(row_bytes, 20 * 2**30) == 28
    assert rows_that_fit(row_bytes, 2**20) == 1


def test_cache_bytes_are_those_of_the_cache_that_a_model_with_two_head_sizes_fills() -> None:
    config = Gemma4TextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_global_key_value_heads=1, head_dim=8,
        global_head_dim=16, layer_types=["sliding_attention", "full_attention"],
        attention_k_eq_v=True, hidden_size_per_layer_input=0, vocab_size_per_layer_input=64,
    )  # fmt: skip
    cache = Gemma4ForCausalLM(config)(torch.arange(10)[None], use_cache=True).past_key_values
    filled = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    num_bytes = sum(tensor.nbytes for tensor in filled)
    # Keys and values: 2 heads of size 8 in one layer, 1 of size 16 in the other; 4 bytes each.
    assert num_bytes == 10 * 2 * (2 * 8 + 1 * 16) * 4
    assert cache_bytes_per_token(config, torch.float32) * 10 == num_bytes
