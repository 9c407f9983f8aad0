"""Render examples with a template and tokenise them, each token with its role.

The prompt is tokenised as one text, exactly as at inference. The completion has tokens of its own,
so none spans the boundary between prompt and completion, where the loss weight changes.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from trainers.data.chat_answers import ChatRenderingError
from trainers.data.chat_rendering import ChatRenderer
from trainers.data.chat_spans import RenderedChat
from trainers.data.chat_template import ChatTemplate, GenerationMask
from trainers.data.examples import Example, GivenTokens
from trainers.data.jinja_rendering import JinjaRenderer
from trainers.data.part_weights import locate_parts
from trainers.data.role_spans import (
    Rendered,
    RoleSpan,
    TurnRoles,
    hides_thinking,
    split_at_parts,
    weight_of,
    with_roles,
    without_end_token,
)
from trainers.data.roles import EncodedExample, Role, UntruncatedExample
from trainers.data.single_turn import (
    check_single_turn,
    render_alpaca,
    render_plain,
)
from trainers.data.span_tokenizer import SpanTokenizer
from trainers.data.template_advice import has_chatml_tokens, tools_advice
from trainers.data.template_errors import misfit_error
from trainers.data.template_files import CHATML_TOKENS, CHATML_TOOLS, DEEPSEEK_R1, SINGLE_TURN
from trainers.data.template_source import load_template_source
from trainers.data.truncation import (
    Limit,
    TruncatedExample,
    truncate,
    truncate_for_scoring,
)
from trainers.data_config import CompletionTurns, DataConfig, TruncationSide
from trainers.foundation.errors import InputError, Problem

log = logging.getLogger(__name__)

# Increase it when the code here, or in the modules on chats and spans, produces other tokens or
# roles.
TOKENS_VERSION = 7


class Template:
    """Renders examples as prompt and completion, and tokenises both with roles.

    With `completion_turns` "all", the assistant turns within the prompt also count as completion,
    each with its end-of-turn token. The tokens are the same in both modes.

    Raises:
        InputError: the template does not exist, does not compile, or does not fit the tokenizer.
    """

    def __init__(
        self,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        completion_turns: CompletionTurns = "last",
        args: Mapping[str, Any] | None = None,
        truncation_side: TruncationSide = "left",
    ) -> None:
        self.name = name
        self.args = dict(args or {})
        self.tokenizer = tokenizer
        self.completion_turns = completion_turns
        self.truncation_side: TruncationSide = truncation_side
        found = load_template_source(name, tokenizer)
        found.check_args(self.args)
        self.is_chat = found.is_chat
        self.source = found.text
        self._turns = TurnRoles(completion_turns)
        self._has_warned = False
        self._render: Callable[[Example], Rendered]
        if found.is_chat:
            self.source = found.text or json.dumps(tokenizer.chat_template)
            self._chat = ChatRenderer(tokenizer, ChatTemplate(tokenizer, found.text, self.args))
            self._render = self._render_chat
            if name == CHATML_TOOLS:
                self._check_chatml_tokens()
            if name == DEEPSEEK_R1 and tokenizer.chat_template:
                self._check_same_prompt()
        elif name in SINGLE_TURN:
            self._render = self._render_single_turn
        else:
            assert found.text is not None
            self._render = JinjaRenderer(
                name,
                found.text,
                self.args,
                self._turns,
                has_chat_template=bool(tokenizer.chat_template),
            ).render
        if tokenizer.eos_token_id is None:
            raise InputError(
                Problem(
                    message="the tokenizer has no end-of-sequence token",
                    fix="set eos_token in the model folder's tokenizer_config.json",
                )
            )
        self._spans = SpanTokenizer(tokenizer, self._turns, is_chat=found.is_chat)

    @classmethod
    def for_data(cls, data: DataConfig, tokenizer: PreTrainedTokenizerBase) -> "Template":
        """Return the template of these settings."""
        return cls(
            data.template,
            tokenizer,
            data.completion_turns,
            data.template_args,
            data.truncation_side,
        )

    def _check_chatml_tokens(self) -> None:
        if not has_chatml_tokens(self.tokenizer):
            raise InputError(
                Problem(
                    message=f"data.template {self.name} is for models with the tokens"
                    f" {' and '.join(CHATML_TOKENS)}, which the tokenizer does not have",
                    fix="set data.template to chat",
                )
            )

    def _check_same_prompt(self) -> None:
        """Check that the template of DeepSeek R1 gives the prompts of the model's own one."""
        turns = [{"role": "user", "content": "a"}]
        own = ChatTemplate(self.tokenizer).render(turns, None, generation_prompt=True)
        ours = "".join(span.text for span in self._chat.render_prompt(turns))
        if own != ours:
            raise InputError(
                Problem(
                    message=(
                        f"data.template {self.name} is for another model: it renders the prompt"
                        f" {json.dumps(ours, ensure_ascii=False)}, and the model's chat template"
                        f" {json.dumps(own, ensure_ascii=False)}"
                    ),
                    fix="set data.template to chat",
                )
            )

    @property
    def end_token_id(self) -> int:
        """Return the token that ends a completion: the template's end of turn, or else EOS."""
        eos_token_id: int = self.tokenizer.eos_token_id
        if not self.is_chat:
            return eos_token_id
        return int(self.tokenizer.convert_tokens_to_ids(self._chat.end_token()))

    def encode(self, example: Example, max_length: int) -> EncodedExample:
        """Return the tokens of `example` for scoring, at most `max_length`.

        Raises:
            InputError: the template cannot render the example.
        """
        limit = Limit(max_length=max_length, side=self.truncation_side)
        return truncate_for_scoring(example, self._tokenize_one(example), self._tokenize_one, limit)

    def truncate(
        self, example: Example, whole: UntruncatedExample, max_length: int, *, cut_completion: bool
    ) -> TruncatedExample | None:
        """Return at most `max_length` tokens of `example` for training (see `truncate`).

        Raises:
            InputError: the template cannot render the example without its oldest turns.
        """
        limit = Limit(max_length=max_length, side=self.truncation_side)
        return truncate(example, whole, self._tokenize_one, limit, cut_completion=cut_completion)

    def tokenize(self, examples: Sequence[Example]) -> list[UntruncatedExample]:
        """Return all tokens of each example; one batch is faster than single calls.

        Examples that the data contains as tokens are not rendered.

        Raises:
            InputError: the template cannot render an example, or cannot mark all assistant turns
                that belong to the completion.
        """
        texts = [example for example in examples if example.tokens is None]
        if len(texts) < len(examples):
            encoded = iter(self.tokenize(texts) if texts else ())
            return [_given(one, one.tokens) if one.tokens else next(encoded) for one in examples]
        rendered = [
            without_end_token(self._render_with_parts(example), self.tokenizer.eos_token)
            for example in examples
        ]
        prompts = self._spans.tokenize_prompts(examples, [one.prompt for one in rendered])
        completions = self._spans.tokenize_completions(
            [one.completion for one in rendered], [one.prompt for one in rendered], prompts
        )
        return [
            replace(
                prompt,
                completion_ids=ids if one.has_end else [*ids, self.tokenizer.eos_token_id],
                completion_roles=roles if one.has_end else [*roles, int(Role.COMPLETION)],
                weights=_weights_if_given(
                    [*(prompt.weights or ()), *weights]
                    + ([] if one.has_end else [weight_of(example.messages[-1])])
                ),
                sample_weight=example.sample_weight,
                hides_thinking=hides_thinking(example, one.prompt),
                hides_name=self._hides_name(example),
            )
            for example, one, prompt, (ids, roles, weights, _) in zip(
                examples, rendered, prompts, completions, strict=True
            )
        ]

    def _render_with_parts(self, example: Example) -> Rendered:
        """Return the rendered example with a span of its own for each weighted part of a turn."""
        rendered = self._render(example)
        if not any(turn.part_weights for turn in example.messages):
            return rendered

        def text_of(example: Example) -> str:
            return self._render(example).text

        regions = list(locate_parts(example, rendered.text, text_of))
        start = len("".join(span.text for span in rendered.prompt))
        return replace(
            rendered,
            prompt=list(split_at_parts(rendered.prompt, 0, regions)),
            completion=list(split_at_parts(rendered.completion, start, regions)),
        )

    def _hides_name(self, example: Example) -> bool:
        """Return whether the template leaves out the name of a turn."""
        marks = [
            f"\ue000name {index}\ue001" if "name" in turn.fields else ""
            for index, turn in enumerate(example.messages)
        ]
        if not any(marks):
            return False
        marked = tuple(
            replace(turn, fields={**turn.fields, "name": mark}) if mark else turn
            for turn, mark in zip(example.messages, marks, strict=True)
        )
        try:
            text = self._render(replace(example, messages=marked)).text
        except InputError:  # The template only takes names that it knows.
            return False
        return any(mark not in text for mark in marks)

    def _tokenize_one(self, example: Example) -> UntruncatedExample:
        return self.tokenize([example])[0]

    def render_prompt(self, example: Example) -> str:
        """Return the prompt as text, without the start token that `encode_prompt` may add.

        Raises:
            InputError: the template cannot render the example.
        """
        return "".join(span.text for span in self._render_prompt(example))

    def generation_mask(self, example: Example) -> GenerationMask | None:
        """Return which tokens of the chat the template marks with {% generation %}.

        The result comes from transformers' `return_assistant_tokens_mask`. Its tokens are those of
        the whole chat, which may continue after the completion's end token. None if the template
        has no markers or is not a chat template.

        Raises:
            InputError: the template cannot render the example.
        """
        if not self.is_chat or example.tokens is not None:
            return None
        try:
            turns = [turn.to_template() for turn in example.messages]
            return self._chat.generation_mask(turns, example.tools)
        except ChatRenderingError as error:
            raise self._misfit(example, error) from None

    def encode_prompt(self, example: Example) -> list[int]:
        """Return the prompt's token ids, the same in training and at inference."""
        return self._tokenize_prompt(example).prompt_ids

    def truncate_prompt(self, example: Example, max_length: int) -> EncodedExample:
        """Return at most `max_length` tokens of the prompt, cut as in training."""
        limit = Limit(max_length=max_length, side=self.truncation_side)
        whole = self._tokenize_prompt(example)
        return truncate_for_scoring(example, whole, self._tokenize_prompt, limit)

    def _tokenize_prompt(self, example: Example) -> UntruncatedExample:
        return self._spans.tokenize_prompts([example], [self._render_prompt(example)])[0]

    def encode_rendered_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts that `render_prompt` returned, as `encode_prompt` does."""
        encoded = self.tokenizer(
            list(prompts), add_special_tokens=False, return_attention_mask=False
        )
        return [self._spans.bos_ids + ids for ids in encoded["input_ids"]]

    def encode_completion(self, completion: str, prompt: str | None = None) -> list[int]:
        """Return the token ids of the text `completion`, followed by the end-of-sequence token.

        With `prompt`, a text that `render_prompt` returned, they are those of training. Without it,
        they are those of a text of its own, which some tokenizers begin with a space.
        """
        if prompt is not None:
            ids = self._spans.continuation_ids(prompt, completion)
        else:
            ids = self.tokenizer(completion, add_special_tokens=False)["input_ids"]
        return [*ids, self.tokenizer.eos_token_id]

    def _render_prompt(self, example: Example) -> list[RoleSpan]:
        """Return the spans of the prompt; the answer is not used and may be missing."""
        if not self.is_chat:
            return self._render(example).prompt
        try:
            turns = [turn.to_template() for turn in example.messages[:-1]]
            spans = self._chat.render_prompt(turns, example.tools)
        except ChatRenderingError as error:
            raise self._misfit(example, error) from None
        return with_roles(spans, example.messages)

    def _render_chat(self, example: Example) -> Rendered:
        turns = [turn.to_template() for turn in example.messages]
        completions = self._turns.earlier_completions(example)
        excluded = self._turns.excluded_answers(example)
        try:
            chat = self._chat.render(turns, example.tools, completions, excluded)
        except ChatRenderingError as error:
            raise self._misfit(example, error) from None
        shown = {span.message for span in chat.prompt if span.part == "history"}
        for index, turn in enumerate(example.messages):
            if turn.train is False and "tool_calls" in turn.fields and index not in shown:
                message = f"messages[{index}] has weight 0, but its tool calls cannot be found"
                raise self._misfit(example, ChatRenderingError(f"{message} in the rendered chat"))
        self._warn_of_unmarked_end(chat)
        return Rendered(
            with_roles(chat.prompt, example.messages),
            with_roles(chat.completion, example.messages),
            chat.end_token is not None,
        )

    def _misfit(self, example: Example, error: ChatRenderingError) -> InputError:
        return misfit_error(example, error, tools_advice(self.name, self.tokenizer))

    def _warn_of_unmarked_end(self, chat: RenderedChat) -> None:
        """Warn once if the template's author says that the model does not write the end token."""
        if chat.completion[-1].part == "template" and not self._has_warned:
            self._has_warned = True
            log.warning(
                "the chat template's {%% generation %%} markers leave the end token %s out: the"
                " model does not learn to end its answers",
                chat.end_token,
            )

    def _render_single_turn(self, example: Example) -> Rendered:
        check_single_turn(example, self.name, has_chat_template=bool(self.tokenizer.chat_template))
        return render_plain(example) if self.name == "plain" else render_alpaca(example)


def _weights_if_given(weights: list[float]) -> list[float] | None:
    return None if all(map(math.isnan, weights)) else weights


def _given(example: Example, tokens: GivenTokens) -> UntruncatedExample:
    """Return the tokens of the data; what precedes the last run of completion tokens is prompt."""
    ids = list(tokens.input_ids)
    roles = [int(Role.COMPLETION if one else Role.USER) for one in tokens.is_completion]
    start = tokens.completion_start
    return UntruncatedExample(
        id=example.id,
        prompt_ids=ids[:start],
        prompt_roles=roles[:start],
        completion_ids=ids[start:],
        completion_roles=roles[start:],
        prompt_texts=(range(1, start),) if start > 1 else (),  # All but the start token.
        weights=None if tokens.weights is None else list(tokens.weights),
        sample_weight=example.sample_weight,
    )
