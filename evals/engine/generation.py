"""Decoding: what a model goes on with behind its prompts, many at a time.

Shapes: B rows, T tokens.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from evals.engine.batching import Progress, pad, run_batches, sorted_batches
from evals.engine.loading import LoadedModel, generation_settings

# A row that has ended costs as much as one that has not until it is taken out, and that copies
# what the others remember.
_SHARE_ENDED = 0.25
_GREEDY: Mapping[str, Any] = MappingProxyType({})

OnOutput = Callable[[int, list[int]], None]
"""Told the number of a prompt and its continuation as soon as that is there."""


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
    on_output: OnOutput | None = None,
) -> list[list[int]]:
    """The continuation of each prompt, up to and without the first end token.

    It may also end where one of `stop_texts` has been written, which is then part of it.
    `sampling` are settings of transformers' generation; without any it is greedy.
    """
    outputs: dict[int, list[int]] = {}

    def run(batch: list[int]) -> None:
        # What a batch had written before it did not fit into memory is written again.
        rows = _decode(loaded, [prompts[n] for n in batch], max_new_tokens, stop_texts, sampling)
        for row, output in rows:
            outputs[batch[row]] = output
            if on_output is not None:
                on_output(batch[row], output)
            on_progress(len(outputs), len(prompts))

    # Two passes for the prompts of a batch, then one for each new token.
    pass_cost = (2 + max_new_tokens) * loaded.scorer.reader.pass_cost
    lengths = [len(prompt) for prompt in prompts]
    run_batches(sorted_batches(lengths, batch_size, pass_cost=pass_cost), run)
    return [outputs[n] for n in range(len(prompts))]


class _Written(StoppingCriteria):  # type: ignore[misc]  # transformers is not typed
    """What each row has written, which have ended, and whether enough have to go on without them.

    For stop texts only the last tokens are looked at, a few more than the longest text has:
    another way to tokenise it must not hide it.
    """

    def __init__(self, loaded: LoadedModel, num_rows: int, stop_texts: Sequence[str]) -> None:
        self._tokenizer: Any = loaded.tokenizer
        self._stop_ids = frozenset(loaded.stop_ids)
        self._stop_texts = list(stop_texts)
        self._num_looked_at = 0
        if stop_texts:
            encoded = self._tokenizer(self._stop_texts, add_special_tokens=False)["input_ids"]
            self._num_looked_at = max(map(len, encoded)) + 2
        # Rows can only be taken out of keys and values.
        self._share = _SHARE_ENDED if loaded.scorer.reader.keeps_context else 1.0
        self.outputs: list[list[int]] = [[] for _ in range(num_rows)]
        self.ended = [False] * num_rows
        self.rows = list(range(num_rows))

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        for row, token in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
            if not self.ended[row]:
                self.ended[row] = token in self._stop_ids
                if not self.ended[row]:
                    self.outputs[row].append(token)
        still_open = [row for row in self.rows if not self.ended[row]]
        # Of no rows, transformers decodes one text.
        if self._stop_texts and still_open:
            self._look_for_texts(still_open)
        ended = torch.tensor([self.ended[row] for row in self.rows], device=input_ids.device)
        if int(ended.sum()) >= math.ceil(self._share * len(ended)):
            ended[:] = True
        return ended

    def _look_for_texts(self, rows: Sequence[int]) -> None:
        tails = [self.outputs[row][-self._num_looked_at :] for row in rows]
        for row, text in zip(rows, self._tokenizer.batch_decode(tails), strict=True):
            self.ended[row] = any(stop in text for stop in self._stop_texts)


def _decode(
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    stop_texts: Sequence[str],
    sampling: Mapping[str, Any],
) -> Iterator[tuple[int, list[int]]]:
    """Each row's number and output, as they end; those that have ended are not read on."""
    model: Any = loaded.model
    context, unread = loaded.scorer.reader.begin(prompts)
    input_ids_BT, mask_BT = pad(unread, side="left", device=loaded.device)
    cache = None
    if context is not None:
        cache = context.cache
        mask_BT = torch.cat([context.mask_RT, mask_BT], dim=1)
    written = _Written(loaded, len(prompts), stop_texts)
    num_new = 0
    while True:
        found = model.generate(
            input_ids_BT,
            attention_mask=mask_BT,
            past_key_values=cache,
            stopping_criteria=[written],
            generation_config=generation_settings(
                **{"do_sample": False, "num_beams": 1, **sampling},
                max_new_tokens=max_new_tokens - num_new,
                eos_token_id=loaded.stop_ids,
                pad_token_id=loaded.stop_ids[0],
                use_cache=True,
                return_dict_in_generate=True,
            ),
        )
        new_BT = found.sequences[:, input_ids_BT.shape[1] :]
        num_new += new_BT.shape[1]
        is_last = num_new == max_new_tokens
        left = [n for n, row in enumerate(written.rows) if not (is_last or written.ended[row])]
        yield from (
            (row, written.outputs[row]) for n, row in enumerate(written.rows) if n not in left
        )
        if not left:
            return
        written.rows = [written.rows[n] for n in left]
        chosen = torch.tensor(left, device=loaded.device)
        mask_BT = torch.cat([mask_BT, torch.ones_like(new_BT)], dim=1)[chosen]
        # The last token is written but not read yet.
        input_ids_BT = new_BT[chosen, -1:]
        cache = found.past_key_values
        cache.batch_select_indices(chosen)
