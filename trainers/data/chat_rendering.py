"""Render chats exactly as a model's chat template does, and label every character with a role.

The prompt is the template's rendering of all turns except the last, followed by the generation
prompt. The model sees the same text at inference. The completion is the text that the rendering of
the whole chat adds to the prompt, up to the token that ends an assistant turn.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from trainers.data.chat_answers import (
    REASONING_FIELDS,
    AnswerFinder,
    ChatRenderingError,
    attempt,
    text_of,
    with_other_arguments,
    without_one_call,
)
from trainers.data.chat_spans import (
    PART_OF_ROLE,
    RenderedChat,
    Span,
    locate_texts,
    replace_spans,
    text_length,
    within_ranges,
)
from trainers.data.chat_template import ChatTemplate, GenerationMask
from trainers.data.template_advice import replacement_advice
from trainers.data.template_spans import FieldFinder, describe_error

_ANSWER = "\ue000answer\ue001"
_USE_EACH = "set data.completion_turns to each, so that each assistant turn becomes an example"


class ChatRenderer:
    """Renders chats with one chat template, by default that of the tokenizer."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template or ChatTemplate(tokenizer)
        self._answers = AnswerFinder(tokenizer)
        self._fields = FieldFinder()
        self._end_token: str | None = None
        self._end_of_chat: str | None = None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
        earlier_completions: Sequence[int] = (),
        excluded: Sequence[int] = (),
    ) -> RenderedChat:
        """Return the chat `messages`, which ends with an assistant turn, as prompt and completion.

        Args:
            messages: in the format of chat templates: `role`, `content` and further fields.
            tools: definitions of tools, passed to the template.
            earlier_completions: indices of earlier assistant turns that also belong to the
                completion, each with its end token.
            excluded: indices of earlier assistant turns whose end tokens belong to their turns.

        Raises:
            ChatRenderingError: the template rejects the chat; its prompt changes when the answer is
                added; it omits a message, a tool call, reasoning or the tools; it renders a turn of
                `earlier_completions` differently from the text that the model must write; or it
                does not end such a turn with a special token.
        """
        messages = self._without_end_tokens(messages)
        chat = self._render_last(messages, tools)
        prompt = "".join(span.text for span in chat.prompt)
        spans = list(chat.prompt)
        for index, turn in enumerate(messages[:-1]):
            has_fields = any(turn.get(name) for name in ("tool_calls", *REASONING_FIELDS))
            if (has_fields or index in excluded) and index not in earlier_completions:
                spans = self._label_turn(spans, prompt, messages[: index + 1], tools)
        for index in earlier_completions:
            earlier = self._render_last(messages[: index + 1], tools)
            before = "".join(span.text for span in earlier.prompt)
            if not prompt.startswith(before + "".join(span.text for span in earlier.completion)):
                raise ChatRenderingError(
                    f"messages[{index}] is a completion, but the chat template changes or omits it"
                    " in a longer chat; some templates remove the thinking of earlier turns",
                    _USE_EACH,
                )
            if earlier.end_token is None:
                raise ChatRenderingError(
                    f"messages[{index}] is a completion, but the chat template writes no special"
                    " token after it: the model would not learn to end it",
                    f"{_USE_EACH}, or write an end token there in the template",
                )
            spans = replace_spans(spans, len(before), earlier.completion)
        return self._within_markers(replace(chat, prompt=tuple(spans)), messages, tools)

    def _within_markers(
        self,
        chat: RenderedChat,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None,
    ) -> RenderedChat:
        """Return the chat in which only text within {% generation %} markers is completion.

        Text within markers that is part of the prompt at inference stays prompt, such as the start
        of the answer's turn.
        """
        if not self._template.has_markers(tools):
            return chat
        ranges = self._template.generated_ranges(messages, tools)
        completion = within_ranges(chat.completion, ranges, start=text_length(chat.prompt))
        if all(span.part == "template" for span in completion):
            raise ChatRenderingError(
                "the chat template's {% generation %} markers leave the answer out: nothing of it"
                " would be trained on",
                "put the markers around the answer in the template, or remove them",
            )
        prompt = within_ranges(chat.prompt, ranges, start=0)
        return replace(chat, prompt=tuple(prompt), completion=tuple(completion))

    def _render_last(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None
    ) -> RenderedChat:
        """Return the rendered chat with only the last turn as completion."""
        # Earlier turns stay as they are: the prompt is the one at inference.
        turns, answer = messages[:-1], messages[-1]
        spans = self._prompt_spans(turns, tools)
        prompt = "".join(span.text for span in spans)

        def render(answer: Mapping[str, Any]) -> str:
            whole = self._render([*turns, answer], tools, generation_prompt=False)
            if not whole.startswith(prompt):
                raise ChatRenderingError(
                    "the chat template renders the prompt differently once the answer follows it:"
                    f" {_difference(prompt, whole)}",
                    replacement_advice(self._tokenizer, self._template, [*turns, answer], tools),
                )
            return whole[len(prompt) :]

        found = self._answers.find(answer, prompt, render, self.tokens_at_end_of_chat())
        completion, thinking_end = found.text, found.thinking_end
        index = len(messages) - 1
        parts = [
            Span(completion[:thinking_end], "thinking", index),
            Span(completion[thinking_end:], "completion", index),
        ]
        return RenderedChat(
            prompt=tuple(spans),
            completion=tuple(span for span in parts if span.text),
            end_token=found.end_token,
        )

    def _label_turn(
        self,
        spans: Sequence[Span],
        prompt: str,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None,
    ) -> list[Span]:
        """Label all of an earlier turn as history, if the prompt shows it as an answer."""
        try:
            earlier = self._render_last(messages, tools)
        except ChatRenderingError:
            return list(spans)
        before = "".join(span.text for span in earlier.prompt)
        shown = "".join(span.text for span in earlier.completion)
        if not prompt.startswith(before + shown):
            return list(spans)
        return replace_spans(spans, len(before), [Span(shown, "history", len(messages) - 1)])

    def render_prompt(
        self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None = None
    ) -> list[Span]:
        """Return the prompt of the next assistant turn as spans of message and template text.

        Raises:
            ChatRenderingError: the template rejects the turns, or omits a message, a tool call or
                the tools.
        """
        return self._prompt_spans(self._without_end_tokens(turns), tools)

    def _prompt_spans(
        self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None
    ) -> list[Span]:
        def render(texts: Sequence[str]) -> str:
            changed = [{**turn, "content": text} for turn, text in zip(shown, texts, strict=True)]
            given = iter(changed)
            return self._render(
                [next(given) if text_of(turn) else turn for turn in turns],
                tools,
                generation_prompt=True,
            )

        shown = [turn for turn in turns if text_of(turn)]
        indices = [index for index, turn in enumerate(turns) if text_of(turn)]
        texts = [text_of(turn) for turn in shown]
        shape = _shape(turns, indices, tools)
        pieces, prompt = self._fields.find(shape, texts, render)
        if {index for _, index in pieces if index is not None} != set(range(len(texts))):
            pieces = locate_texts(texts, prompt, render)
        spans = [
            Span(text, "template")
            if field is None
            else Span(text, PART_OF_ROLE[str(shown[field]["role"])], indices[field])
            for text, field in pieces
            if text
        ]
        self._check_prompt(turns, tools, prompt)
        return spans

    def _check_prompt(
        self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, prompt: str
    ) -> None:
        for index, turn in enumerate(turns):
            for fewer in without_one_call(turn):
                changed = [*turns[:index], fewer, *turns[index + 1 :]]
                if prompt == attempt(partial(self._render, changed, tools, generation_prompt=True)):
                    raise ChatRenderingError(
                        f"the chat template does not show messages[{index}].tool_calls"
                    )
            others = with_other_arguments(turn)
            changed = [*turns[:index], others or turn, *turns[index + 1 :]]
            if others and prompt == attempt(
                partial(self._render, changed, tools, generation_prompt=True)
            ):
                raise ChatRenderingError(
                    f"the chat template does not show the arguments of messages[{index}].tool_calls"
                )
        without = partial(self._render, turns, None, generation_prompt=True)
        if tools and prompt == attempt(without):
            raise ChatRenderingError("the chat template does not show the record's tools")

    def _render(
        self,
        turns: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None,
        *,
        generation_prompt: bool,
    ) -> str:
        try:
            return self._template.render(turns, tools, generation_prompt=generation_prompt)
        except Exception as error:  # A template is a program and can raise any error.
            raise _rejected(error) from error

    def generation_mask(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None
    ) -> GenerationMask | None:
        """Return the whole chat's tokens within {% generation %} markers; None without markers.

        Raises:
            ChatRenderingError: the template rejects the chat.
        """
        try:
            return self._template.generation_mask(self._without_end_tokens(messages), tools)
        except Exception as error:  # A template is a program and can raise any error.
            raise _rejected(error) from error

    def _without_end_tokens(self, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the messages without end tokens that are already in the data's answers."""
        return [
            self._without_end_token(one) if one["role"] == "assistant" else one for one in messages
        ]

    def _without_end_token(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        content = message.get("content")
        if not isinstance(content, str):
            return message
        tokens = (self.end_token(), str(self._tokenizer.eos_token))
        shortened = content
        while (text := shortened.rstrip()).endswith(tokens):
            token = next(one for one in tokens if text.endswith(one))
            shortened = text.removesuffix(token)
            if not shortened.strip():
                raise ChatRenderingError(
                    f"an answer is only the end token {token}, so it is empty",
                    "fill it in, or remove the record",
                )
        return message if shortened is content else {**message, "content": shortened}

    def tokens_at_end_of_chat(self) -> str:
        """Return the tokens that the template writes after the end of the last turn alone."""
        if self._end_of_chat is None:
            self._end_of_chat = ""
            turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _ANSWER}]
            with suppress(ChatRenderingError):
                whole = self._render(turns, None, generation_prompt=False)
                longer = self._render([*turns, turns[0]], None, generation_prompt=False)
                self._end_of_chat = self._answers.end_of_chat(whole, longer, _ANSWER)
        return self._end_of_chat

    def end_token(self) -> str:
        """Return the token that ends an assistant turn: the template's, else the EOS token.

        It is that of a chat of two turns, or the EOS token if the template rejects such a chat.
        """
        if self._end_token is None:
            self._end_token = str(self._tokenizer.eos_token)
            turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
            with suppress(ChatRenderingError):
                self._end_token = self._render_last(turns, None).end_token or self._end_token
        return self._end_token


def _shape(
    turns: Sequence[Mapping[str, Any]], indices: Sequence[int], tools: Sequence[Any] | None
) -> Hashable:
    """Return everything of a prompt but the texts of the turns at `indices`."""
    others = ""
    if tools or any(len(turn) > 2 for turn in turns):  # More than role and content.
        fields = [{k: v for k, v in turn.items() if k != "content"} for turn in turns]
        others = json.dumps([fields, tools], sort_keys=True, default=str)
    return tuple(turn["role"] for turn in turns), tuple(indices), others


def _rejected(error: Exception) -> ChatRenderingError:
    return ChatRenderingError(f"the chat template rejects the chat: {describe_error(error)}")


def _difference(prompt: str, whole: str) -> str:
    """Return the first difference between two texts, shortened for an error message."""
    same = next(
        (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(whole)
    )
    ours, theirs = prompt[same : same + 30], whole[same : same + 30]
    return f"the prompt continues with {json.dumps(ours)}, the whole chat with {json.dumps(theirs)}"
