"""Generation: does a model write the true completion, or something like it?"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import StoppingCriteria

from evals.batches import Progress, pad, run_batches, sorted_batches
from evals.config import GenerationConfig
from evals.measure import Measured, Sample
from evals.model import LoadedModel, generation_settings
from evals.scoring import chrf, share
from trainers.errors import InputError, Problem
from trainers.examples import Example

GenerationMeasure = Literal["short_generation", "long_generation"]
_GREEDY: Mapping[str, Any] = MappingProxyType({})


def measure_short_generation(
    loaded: LoadedModel,
    examples: Sequence[Example],
    config: GenerationConfig,
    *,
    batch_size: int,
    on_progress: Progress,
) -> Measured:
    """`short_generation_exact_match`: the share of outputs equal to the true completion.

    White space around either does not count, letter case does.
    """
    samples = _generated(loaded, "short_generation", examples, config, batch_size, on_progress)
    for sample in samples:
        sample["value"] = float(sample["output"].strip() == sample["target"].strip())
    score = share([sample["value"] == 1.0 for sample in samples]).as_score(
        "short_generation_exact_match",
        group="short_generation",
        higher_is_better=True,
        unit="share of items",
    )
    return Measured(scores=[score], samples=samples)


def measure_long_generation(
    loaded: LoadedModel,
    examples: Sequence[Example],
    config: GenerationConfig,
    *,
    batch_size: int,
    seed: int,
    on_progress: Progress,
) -> Measured:
    """`long_generation_chrf`: corpus chrF of the outputs against the true completions.

    A sample's `value` is the chrF of that output alone; the score is not their mean.
    """
    samples = _generated(loaded, "long_generation", examples, config, batch_size, on_progress)
    result = chrf(
        [sample["output"].strip() for sample in samples],
        [sample["target"].strip() for sample in samples],
        seed,
    )
    for sample, value in zip(samples, result.sentence_scores, strict=True):
        sample["value"] = value
    score = result.estimate.as_score(
        "long_generation_chrf", group="long_generation", higher_is_better=True, unit="chrF"
    )
    return Measured(scores=[score], samples=samples, signature={"chrf": result.signature})


class StopTexts(StoppingCriteria):  # type: ignore[misc]  # transformers is not typed
    """Ends each row whose output has come to hold one of some texts.

    Only the last tokens are looked at, a few more than the longest text has: another way to
    tokenise it must not hide it.
    """

    def __init__(self, loaded: LoadedModel, texts: Sequence[str], num_prompt_tokens: int) -> None:
        tokenizer: Any = loaded.tokenizer
        self._tokenizer = tokenizer
        self._texts = list(texts)
        encoded = tokenizer(self._texts, add_special_tokens=False)["input_ids"]
        self._num_looked_at = max(map(len, encoded)) + 2
        self._num_prompt_tokens = num_prompt_tokens
        self._done: list[bool] | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        new_BT = input_ids[:, self._num_prompt_tokens :][:, -self._num_looked_at :]
        if self._done is None:
            self._done = [False] * len(new_BT)
        for row, text in enumerate(self._tokenizer.batch_decode(new_BT)):
            self._done[row] = self._done[row] or any(stop in text for stop in self._texts)
        return torch.tensor(self._done, device=input_ids.device)


@torch.inference_mode()
def generate(
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    on_progress: Progress,
    stop_texts: Sequence[str] = (),
    sampling: Mapping[str, Any] = _GREEDY,
    on_output: Callable[[int, list[int]], None] | None = None,
) -> list[list[int]]:
    """The continuation of each prompt, up to and without the first end token.

    It may also end where one of `stop_texts` has been written, which is then part of it.
    `sampling` are settings of transformers' generation; without any it is greedy. `on_output` is
    told a prompt's number and its continuation as soon as that is there.
    """
    settings = generation_settings(
        **{"do_sample": False, "num_beams": 1, **sampling},
        max_new_tokens=max_new_tokens,
        eos_token_id=loaded.stop_ids,
        pad_token_id=loaded.stop_ids[0],
        use_cache=True,
    )
    outputs: list[list[int]] = [[]] * len(prompts)
    done = 0
    model: Any = loaded.model
    # Two passes for the prompts of a batch, then one for each new token.
    pass_cost = (2 + max_new_tokens) * loaded.scorer.reader.pass_cost
    lengths = [len(prompt) for prompt in prompts]

    def run(batch: list[int]) -> None:
        nonlocal done
        context, unread = loaded.scorer.reader.begin([prompts[i] for i in batch])
        input_ids_BT, mask_BT = pad(unread, side="left", device=loaded.device)
        seen: dict[str, Any] = {"attention_mask": mask_BT}
        if context is not None:
            seen["past_key_values"] = context.cache
            seen["attention_mask"] = torch.cat([context.mask_RT, mask_BT], dim=1)
        if stop_texts:
            seen["stopping_criteria"] = [StopTexts(loaded, stop_texts, input_ids_BT.shape[1])]
        generated_BT = model.generate(input_ids_BT, generation_config=settings, **seen)
        for index, row in zip(batch, generated_BT[:, input_ids_BT.shape[1] :], strict=True):
            outputs[index] = _until_stop(row.tolist(), loaded.stop_ids)
            if on_output is not None:
                on_output(index, outputs[index])
        done += len(batch)
        on_progress(done, len(prompts))

    run_batches(sorted_batches(lengths, batch_size, pass_cost=pass_cost), run)
    return outputs


def _generated(
    loaded: LoadedModel,
    measure: GenerationMeasure,
    examples: Sequence[Example],
    config: GenerationConfig,
    batch_size: int,
    on_progress: Progress,
) -> list[Sample]:
    """One sample per example, whose `value` is still to be filled in."""
    asked = [example.inverted() if config.invert else example for example in examples]
    room = _prompt_room(loaded, measure, config)
    whole = [loaded.template.encode_prompt(example) for example in asked]
    prompts = [ids[-room:] for ids in whole]
    outputs = generate(
        loaded,
        prompts,
        max_new_tokens=config.max_new_tokens,
        batch_size=batch_size,
        on_progress=on_progress,
    )
    return [
        {
            "measure": measure,
            "id": example.id,
            "prompt": loaded.decode(prompt),
            "target": example.completion,
            "output": loaded.tokenizer.decode(
                output, skip_special_tokens=True, clean_up_tokenization_spaces=False
            ),
            "value": None,
            "num_new_tokens": len(output),
            "stopped": len(output) < config.max_new_tokens,
            "num_truncated_tokens": len(ids) - len(prompt),
        }
        for example, ids, prompt, output in zip(asked, whole, prompts, outputs, strict=True)
    ]


def _prompt_room(loaded: LoadedModel, measure: GenerationMeasure, config: GenerationConfig) -> int:
    """Tokens of a prompt that are kept: as in training, and so that the output has positions."""
    if loaded.max_positions is None:
        return loaded.max_length
    room = min(loaded.max_length, loaded.max_positions - config.max_new_tokens)
    if room < 1:
        raise InputError(
            Problem(
                message=(
                    f"evals.{measure}.max_new_tokens must leave room for a prompt in the model's"
                    f" {loaded.max_positions} positions, got {config.max_new_tokens}"
                ),
                fix=f"set evals.{measure}.max_new_tokens to a smaller number",
            )
        )
    return room


def _until_stop(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    stops = [index for index, token in enumerate(ids) if token in stop_ids]
    return ids[: stops[0]] if stops else ids
