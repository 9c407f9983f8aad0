"""lm-eval's `LM` interface over the engine of evals: HFLM's numbers, faster.

This module imports lm-eval, so it is imported only when a benchmark runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, cast

import torch
from lm_eval.api.model import LM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
    resolve_max_length,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from evals.engine.batching import ProgressCallback
from evals.engine.generation import generate
from evals.engine.loaded_model import LoadedModel
from evals.engine.loglikelihood import Continuation, ContinuationScore, score_continuations
from evals.results.response_log import ResponseLog, request_keys
from trainers.data.examples import Example, Message
from trainers.data.template import Template
from trainers.foundation.errors import InputError, Problem

# The defaults of lm-eval's HFLM.
DEFAULT_MAX_LENGTH = 2048
DEFAULT_NEW_TOKENS = 256


class EngineLM(LM):  # type: ignore[misc]  # lm-eval is not typed
    """Answers lm-eval's requests of one benchmark or group; logged responses are reused.

    Args:
        responses: the log of earlier responses; new responses are added to it.
        batch_size: maximum rows of a batch; None chooses the size.
        apply_template: prompts are in the checkpoint's template and get the token ids of training.
            Continuations are tokenised separately, instead of together with their context.
        think_end_token: the text that ends the thinking of a generated output, which is removed up
            to its last occurrence; None keeps the output. Stop strings then end only what follows.
        seed: seed for benchmarks that sample.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        responses: ResponseLog,
        *,
        batch_size: int | None,
        apply_template: bool,
        think_end_token: str | None = None,
        seed: int,
        on_progress: ProgressCallback,
    ) -> None:
        super().__init__()
        self._loaded = loaded
        self._tokenizer: Any = loaded.tokenizer
        self._responses = responses
        self._batch_size = batch_size
        self._apply_template = apply_template
        self._think_end_token = think_end_token
        # None unless the text is a single token.
        self._think_end_id: int | None = loaded.tokenizer.get_vocab().get(think_end_token)
        self._seed = seed
        self._on_progress = on_progress
        tokenizer = loaded.tokenizer
        has_bos = tokenizer.bos_token_id is not None
        self._prefix_id: int = tokenizer.bos_token_id if has_bos else tokenizer.eos_token_id
        self._prefix_text: str = self._tokenizer.decode([self._prefix_id])
        self.max_length: int = resolve_max_length(
            loaded.model.config, tokenizer, default=DEFAULT_MAX_LENGTH
        )

    @property
    def tokenizer_name(self) -> str:
        return str(self._tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return the chat in the checkpoint's template, up to the start of the next response."""
        return render_chat(
            self._loaded.template, chat_history, add_generation_prompt=add_generation_prompt
        )

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Return ln p(continuation | context) of each request, and whether it is greedy."""
        keys = request_keys("loglikelihood", [request.args for request in requests])
        pairs = self._encode_pairs([request.args for request in requests])
        for request, pair in zip(requests, pairs, strict=True):
            self._check_scorable(request, pair)
        by_document = groupby(
            range(len(requests)), key=lambda n: (requests[n].task_name, requests[n].doc_id)
        )
        documents = [list(numbers) for _, numbers in by_document]
        missing = [[n for n in d if self._responses.get(keys[n]) is None] for d in documents]
        self._score(
            [[pairs[n] for n in document] for document in missing],
            [[keys[n] for n in document] for document in missing],
        )
        responses = [self._responses.get(key) for key in keys]
        return [(value, is_greedy) for value, is_greedy in responses]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Return ln p(text) of each request, scored in windows of the model's maximum length."""
        keys = request_keys("loglikelihood_rolling", [request.args for request in requests])
        windows: list[list[Continuation]] = []
        for ids in self._encode([request.args[0] for request in requests]):
            rolling = get_rolling_token_windows(ids, self._prefix_id, self.max_length, 1)
            pairs = [make_disjoint_window(window) for window in rolling]
            windows.append([Continuation(context_ids=a, ids=b) for a, b in pairs])
        window_keys = [
            [f"{key}-{n}" for n in range(len(w))] for key, w in zip(keys, windows, strict=True)
        ]
        missing = [
            [(w, k) for w, k in zip(ws, ks, strict=True) if self._responses.get(k) is None]
            for ws, ks in zip(windows, window_keys, strict=True)
        ]
        self._score([[w for w, _ in d] for d in missing], [[k for _, k in d] for d in missing])
        return [sum(self._responses.get(key)[0] for key in text_keys) for text_keys in window_keys]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Return the output for each request, without its stop string."""
        keys = request_keys("generate_until", [request.args for request in requests])
        missing = [n for n, key in enumerate(keys) if self._responses.get(key) is None]
        num_done = len(requests) - len(missing)
        for settings, numbers in _group_by_settings(requests, missing):
            self._generate(settings, requests, numbers, keys, num_done)
            num_done += len(numbers)
        return [self._responses.get(key) for key in keys]

    def _score(
        self, groups: Sequence[Sequence[Continuation]], keys: Sequence[Sequence[str]]
    ) -> None:
        """Score the missing continuations of each document and log them."""
        flat_keys = [key for group_keys in keys for key in group_keys]
        missing_groups = [group for group in groups if group]
        num_done = len(groups) - len(missing_groups)

        def log(index: int, score: ContinuationScore) -> None:
            self._responses.add(flat_keys[index], [score.log_likelihood, score.is_greedy])

        score_continuations(
            self._loaded.scorer,
            missing_groups,
            batch_size=self._batch_size,
            on_progress=lambda done, _: self._on_progress(num_done + done, len(groups)),
            on_score=log,
        )

    def _generate(
        self,
        settings: dict[str, Any],
        requests: Sequence[Any],
        numbers: Sequence[int],
        keys: Sequence[str],
        num_done: int,
    ) -> None:
        """Generate and log the outputs for requests with the same settings."""
        kwargs = dict(normalize_gen_kwargs(settings, DEFAULT_NEW_TOKENS))
        eos_text = self._tokenizer.decode([self._tokenizer.eos_token_id])
        stops = handle_stop_sequences(kwargs.pop("until", None), eos=eos_text)
        max_new_tokens = kwargs.pop("max_gen_toks")
        capacity = self.max_length - max_new_tokens
        if capacity < 1:
            raise InputError(
                Problem(
                    message=f"max_new_tokens of a benchmark must be less than the model's maximum "
                    f"length of {self.max_length} tokens, got {max_new_tokens}",
                    fix="reduce its max_new_tokens, or remove the benchmark",
                )
            )
        prompts = self._encode_prompts([requests[n].args[0] for n in numbers])

        def log(index: int, output: list[int]) -> None:
            self._responses.add(keys[numbers[index]], self._answer(output, stops))

        if kwargs.get("do_sample"):
            torch.manual_seed(self._seed)
        generate(
            self._loaded,
            [ids[-capacity:] for ids in prompts],
            max_new_tokens=max_new_tokens,
            batch_size=self._batch_size,
            on_progress=lambda done, _: self._on_progress(num_done + done, len(requests)),
            stop_strings=[]
            if self._think_end_token
            else [stop for stop in stops if stop and stop != eos_text],
            sampling=kwargs if kwargs.get("do_sample") else {},
            on_output=log,
        )

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Continuation]:
        """Return context and continuation as lm-eval splits them, cut to the maximum length."""
        moved = [_move_trailing_space(*pair) for pair in pairs]
        if self._apply_template:
            contexts = self._encode_prompts([context for context, _ in pairs])
            wholes = [
                context + ids
                for context, ids in zip(
                    contexts, self._encode([text for _, text in pairs], special=False), strict=True
                )
            ]
        else:
            contexts = self._encode([context for context, _ in moved])
            wholes = self._encode([context + text for context, text in moved])
        separate = self._encode([text for _, text in pairs], special=False)
        continuations = []
        for (context, _), context_ids, whole, text_ids in zip(
            pairs, contexts, wholes, separate, strict=True
        ):
            before, ids = context_ids, whole[len(context_ids) :]
            if not context:
                has_prefix = text_ids[0] == self._prefix_id
                before = text_ids[:1] if has_prefix else [self._prefix_id]
                ids = text_ids[1:] if has_prefix else text_ids
            before = before[len(ids) - self.max_length - 1 :]
            continuations.append(Continuation(context_ids=before, ids=ids))
        return continuations

    def _check_scorable(self, request: Any, pair: Continuation) -> None:
        if not 1 <= len(pair.ids) <= self.max_length:
            raise InputError(
                Problem(
                    message=f"item {request.doc_id + 1} of {request.task_name} has a choice of "
                    f"{len(pair.ids)} tokens, but this model can score 1 to {self.max_length}: "
                    f"{request.args[1][:40]!r}",
                    fix="remove the item",
                )
            )

    def _answer(self, output: list[int], stops: Sequence[str]) -> str:
        """Return the text of a generated output without its thinking and its stop string."""
        if self._think_end_id in output:
            # A special token would be missing in the text.
            last = len(output) - 1 - output[::-1].index(self._think_end_id)
            text = self._tokenizer.decode(output[last + 1 :], skip_special_tokens=True).lstrip()
        else:
            text = self._tokenizer.decode(output, skip_special_tokens=True)
        answer: str = postprocess_generated_text(text, stops, self._think_end_token)
        return answer

    def _encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return token ids as training or lm-eval, whichever wrote the prompts, would."""
        if self._apply_template:
            return self._loaded.template.encode_rendered_prompts(prompts)
        return self._encode(prompts)

    def _encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Return token ids with the tokenizer's special tokens, as lm-eval does.

        A text that already begins with the start token does not get a second one.
        """
        encoded_texts: list[list[int]] = [[]] * len(texts)
        adds_special = [special and not has_bos_prefix(text, self._prefix_text) for text in texts]
        for adds in (True, False):
            numbers = [number for number, added in enumerate(adds_special) if added == adds]
            if numbers:
                encoded = self._tokenizer(
                    [texts[n] for n in numbers],
                    add_special_tokens=adds,
                    return_attention_mask=False,
                )["input_ids"]
                for n, ids in zip(numbers, encoded, strict=True):
                    encoded_texts[n] = ids
        return encoded_texts


class ReplayLM(LM):  # type: ignore[misc]  # lm-eval is not typed
    """Returns the responses in the samples of an earlier run, in their original order."""

    def __init__(
        self, responses: Mapping[tuple[str, int, int], Sequence[Any]], template: Template | None
    ) -> None:
        super().__init__()
        self._responses = responses
        self._template = template

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        assert self._template is not None
        return render_chat(
            self._template, chat_history, add_generation_prompt=add_generation_prompt
        )

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(value, greedy) for value, greedy in self._replay(requests)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return list(self._replay(requests))

    def generate_until(self, requests: list[Any]) -> list[str]:
        return list(self._replay(requests))

    @property
    def tokenizer_name(self) -> str:
        return "replayed"

    def _replay(self, requests: list[Any]) -> Iterator[Any]:
        remaining: dict[tuple[str, int, int], Iterator[Any]] = {}
        for request in requests:
            key = (request.task_name, request.doc_id, request.idx)
            yield next(remaining.setdefault(key, iter(self._responses[key])))


def render_chat(
    template: Template, chat_history: Sequence[dict[str, str]], *, add_generation_prompt: bool
) -> str:
    """Return a chat in `template`.

    With `add_generation_prompt`, it ends where the next response begins. Otherwise, the last turn
    is the beginning of the response.
    """
    turns = [Message(role=cast(Any, m["role"]), content=m["content"]) for m in chat_history]
    opening = "" if add_generation_prompt else turns.pop().content
    if not template.is_chat and len(turns) > 1:
        # The other templates have only a single turn.
        turns = [Message(role="user", content="\n\n".join(turn.content for turn in turns))]
    response = Message(role="assistant", content="")
    return template.render_prompt(Example(id="benchmark", messages=(*turns, response))) + opening


def _move_trailing_space(context: str, continuation: str) -> tuple[str, str]:
    """Move trailing white space of a context to the continuation, as most tokenizers expect."""
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


def _group_by_settings(
    requests: Sequence[Any], numbers: Sequence[int]
) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Yield each distinct group of generation settings with the indices of its requests."""
    groups: list[tuple[dict[str, Any], list[int]]] = []
    for number in numbers:
        settings = requests[number].args[1]
        for known_settings, group in groups:
            if known_settings == settings:
                group.append(number)
                break
        else:
            groups.append((settings, [number]))
    yield from groups
