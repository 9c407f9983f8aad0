"""Our model as lm-eval wants one: the same numbers as its own class for transformers, sooner.

Nothing here is imported before a benchmark of lm-eval is to be taken.
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

from evals.engine.batching import Progress
from evals.engine.generation import generate
from evals.engine.loading import LoadedModel
from evals.engine.loglikelihood import Continuation, Likelihood, score_continuations
from evals.results.response_log import Answers, request_keys
from trainers.data.examples import Example, Message
from trainers.data.roles import Template
from trainers.foundation.errors import InputError, Problem

# As lm-eval's own class has it.
DEFAULT_MAX_LENGTH = 2048
DEFAULT_NEW_TOKENS = 256
AUTO_PROMPTS_CPU, AUTO_PROMPTS_GPU = 64, 128


class BenchmarkModel(LM):  # type: ignore[misc]  # lm-eval is not typed
    """Answers lm-eval's requests, all of one benchmark at once, with what is kept left out.

    Args:
        batch_size: rows at most; None finds a size by itself.
        in_template: whether prompts come in the checkpoint's template. Continuations are then
            tokenised on their own, as in training, instead of together with their context.
        seed: of sampling, where a benchmark asks for it.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        answers: Answers,
        *,
        batch_size: int | None,
        in_template: bool,
        seed: int,
        on_progress: Progress,
    ) -> None:
        super().__init__()
        self._loaded = loaded
        self._tokenizer: Any = loaded.tokenizer
        self._answers = answers
        self._batch_size = batch_size
        self._in_template = in_template
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
        """The chat as the checkpoint's template shows it: the last turn is to be answered."""
        return in_template(
            self._loaded.template, chat_history, add_generation_prompt=add_generation_prompt
        )

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """ln p(continuation | context) of each request, and whether it is the greedy one."""
        keys = request_keys("loglikelihood", [request.args for request in requests])
        pairs = self._encode_pairs([request.args for request in requests])
        for request, pair in zip(requests, pairs, strict=True):
            self._refuse_unscorable(request, pair)
        of_document = groupby(range(len(requests)), key=lambda n: requests[n].doc_id)
        documents = [list(numbers) for _, numbers in of_document]
        left = [[n for n in d if self._answers.get(keys[n]) is None] for d in documents]
        self._score(
            [[pairs[n] for n in document] for document in left],
            [[keys[n] for n in document] for document in left],
        )
        answers = [self._answers.get(key) for key in keys]
        return [(value, is_greedy) for value, is_greedy in answers]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """ln p(text) of each request, in windows as long as the model can read."""
        keys = request_keys("loglikelihood_rolling", [request.args for request in requests])
        windows: list[list[Continuation]] = []
        for ids in self._encode([request.args[0] for request in requests]):
            parts = get_rolling_token_windows(ids, self._prefix_id, self.max_length, 1)
            pairs = [make_disjoint_window(part) for part in parts]
            windows.append([Continuation(context_ids=a, ids=b) for a, b in pairs])
        window_keys = [
            [f"{key}-{n}" for n in range(len(w))] for key, w in zip(keys, windows, strict=True)
        ]
        left = [
            [(w, k) for w, k in zip(ws, ks, strict=True) if self._answers.get(k) is None]
            for ws, ks in zip(windows, window_keys, strict=True)
        ]
        self._score([[w for w, _ in d] for d in left], [[k for _, k in d] for d in left])
        return [sum(self._answers.get(key)[0] for key in of_text) for of_text in window_keys]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """The output for each request, up to and without what ends it."""
        keys = request_keys("generate_until", [request.args for request in requests])
        left = [n for n, key in enumerate(keys) if self._answers.get(key) is None]
        num_kept = len(requests) - len(left)
        for settings, numbers in _by_settings(requests, left):
            num_kept = self._generate(settings, requests, numbers, keys, num_kept)
        return [self._answers.get(key) for key in keys]

    def _score(
        self, groups: Sequence[Sequence[Continuation]], keys: Sequence[Sequence[str]]
    ) -> None:
        """Score what is left of each document and keep it."""
        flat = [key for of_group in keys for key in of_group]
        open_groups = [group for group in groups if group]
        num_kept = len(groups) - len(open_groups)

        def keep(number: int, found: Likelihood) -> None:
            self._answers.add(flat[number], [found.log_likelihood, found.is_greedy])

        score_continuations(
            self._loaded.scorer,
            open_groups,
            batch_size=self._batch_size,
            on_progress=lambda done, _: self._on_progress(num_kept + done, len(groups)),
            on_found=keep,
        )

    def _generate(
        self,
        settings: dict[str, Any],
        requests: Sequence[Any],
        numbers: Sequence[int],
        keys: Sequence[str],
        num_kept: int,
    ) -> int:
        """Generate for some requests of the same settings and keep it; how many are kept now."""
        kwargs = dict(normalize_gen_kwargs(settings, DEFAULT_NEW_TOKENS))
        eos_text = self._tokenizer.decode([self._tokenizer.eos_token_id])
        stops = handle_stop_sequences(kwargs.pop("until", None), eos=eos_text)
        max_new_tokens = kwargs.pop("max_gen_toks")
        room = self.max_length - max_new_tokens
        if room < 1:
            raise InputError(
                Problem(
                    message=f"a benchmark asks for {max_new_tokens} new tokens, but the model "
                    f"reads {self.max_length} at most",
                    fix="leave the benchmark out, or set its max_new_tokens",
                )
            )
        prompts = self._encode([requests[n].args[0] for n in numbers])

        def keep(place: int, output: list[int]) -> None:
            text = self._tokenizer.decode(output, skip_special_tokens=True)
            key = keys[numbers[place]]
            self._answers.add(key, postprocess_generated_text(text, stops, None))

        if kwargs.get("do_sample"):
            torch.manual_seed(self._seed)
        on_cpu = self._loaded.device.type == "cpu"
        generate(
            self._loaded,
            [ids[-room:] for ids in prompts],
            max_new_tokens=max_new_tokens,
            batch_size=self._batch_size or (AUTO_PROMPTS_CPU if on_cpu else AUTO_PROMPTS_GPU),
            on_progress=lambda done, _: self._on_progress(num_kept + done, len(requests)),
            stop_texts=[stop for stop in stops if stop and stop != eos_text],
            sampling=kwargs if kwargs.get("do_sample") else {},
            on_output=keep,
        )
        return num_kept + len(numbers)

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Continuation]:
        """Context and continuation as lm-eval splits them, cut to what the model can read."""
        moved = [_with_spaces_moved(*pair) for pair in pairs]
        if self._in_template:
            contexts = self._encode([context for context, _ in pairs])
            wholes = [
                context + ids
                for context, ids in zip(
                    contexts, self._encode([text for _, text in pairs], special=False), strict=True
                )
            ]
        else:
            contexts = self._encode([context for context, _ in moved])
            wholes = self._encode([context + text for context, text in moved])
        alone = self._encode([text for _, text in pairs], special=False)
        found = []
        for (context, _), context_ids, whole, own in zip(
            pairs, contexts, wholes, alone, strict=True
        ):
            before, ids = context_ids, whole[len(context_ids) :]
            if not context:
                starts = own[0] == self._prefix_id
                before, ids = (own[:1], own[1:]) if starts else ([self._prefix_id], own)
            kept = before[len(ids) - self.max_length - 1 :]
            found.append(Continuation(context_ids=kept, ids=ids))
        return found

    def _refuse_unscorable(self, request: Any, pair: Continuation) -> None:
        if not 1 <= len(pair.ids) <= self.max_length:
            raise InputError(
                Problem(
                    message=f"item {request.doc_id + 1} of {request.task_name} has a choice of "
                    f"{len(pair.ids)} tokens, but 1 to {self.max_length} can be scored with this "
                    f"model: {request.args[1][:40]!r}",
                    fix="leave the item out",
                )
            )

    def _encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids as lm-eval has them: with the tokenizer's own special tokens, but no second
        start token in front of a text that brings one."""
        found: list[list[int]] = [[]] * len(texts)
        adds_some = [special and not has_bos_prefix(text, self._prefix_text) for text in texts]
        for adds in (True, False):
            numbers = [number for number, added in enumerate(adds_some) if added == adds]
            if numbers:
                encoded = self._tokenizer(
                    [texts[n] for n in numbers],
                    add_special_tokens=adds,
                    return_attention_mask=False,
                )["input_ids"]
                for n, ids in zip(numbers, encoded, strict=True):
                    found[n] = ids
        return found


class Replayed(LM):  # type: ignore[misc]  # lm-eval is not typed
    """Gives the answers that were kept with the samples of an earlier run, in their order."""

    def __init__(
        self, answers: Mapping[tuple[int, int], Sequence[Any]], template: Template | None
    ) -> None:
        super().__init__()
        self._answers = answers
        self._template = template

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        assert self._template is not None
        return in_template(
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
        turns: dict[tuple[int, int], Iterator[Any]] = {}
        for request in requests:
            place = (request.doc_id, request.idx)
            yield next(turns.setdefault(place, iter(self._answers[place])))


def in_template(
    template: Template, chat_history: Sequence[dict[str, str]], *, add_generation_prompt: bool
) -> str:
    """A chat as a template shows it; its last turn is to be answered, or gone on with."""
    turns = [Message(role=cast(Any, m["role"]), content=m["content"]) for m in chat_history]
    opening = "" if add_generation_prompt else turns.pop().content
    if template.name != "chat" and len(turns) > 1:
        # The other templates show one turn.
        turns = [Message(role="user", content="\n\n".join(turn.content for turn in turns))]
    answered = Message(role="assistant", content="")
    return template.render_prompt(Example(id="benchmark", messages=(*turns, answered))) + opening


def _with_spaces_moved(context: str, continuation: str) -> tuple[str, str]:
    """White space at a context's end belongs to what follows, as most tokenizers see it."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _by_settings(
    requests: Sequence[Any], numbers: Sequence[int]
) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Requests that are generated with the same settings."""
    found: list[tuple[dict[str, Any], list[int]]] = []
    for number in numbers:
        settings = requests[number].args[1]
        for known, of_known in found:
            if known == settings:
                of_known.append(number)
                break
        else:
            found.append((settings, [number]))
    yield from found
