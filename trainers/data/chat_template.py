"""Apply a chat template with transformers, and read what it says about the model's own tokens."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import (
    _compile_jinja_template,
    render_jinja_template,
)

from trainers.data.examples import OTHER_NAMES_OF_ROLES
from trainers.data.template_source import CLOCK, clock
from trainers.data.tool_arguments import ArgumentForm, Messages

Tools = Sequence[Any] | None

# Source: transformers, render_jinja_template.
_GENERATION_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")


@lru_cache
def _has_markers(text: str) -> bool:
    return _GENERATION_MARKER.search(text) is not None


@dataclass(frozen=True, kw_only=True)
class GenerationMask:
    """The tokens of a whole chat, and whether the model generates each; both (T,)."""

    input_ids: list[int]
    mask: list[bool]


class ChatTemplate:
    """The chat template of a tokenizer, or the one in `text`, with its arguments.

    Args:
        args: further variables of the template. `tools` are those of chats without any; `date` is
            the date that `strftime_now` formats.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text: str | None = None,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        own = tokenizer.chat_template
        # None if the tokenizer has several templates, of which the tools decide.
        self._text: str | None = text or (own if isinstance(own, str) else None)
        self._given_args = args or {}
        self._args = dict(self._given_args)
        self._clock = clock(self._args)
        self._tools: Tools = self._args.pop("tools", None)
        # By text, of which a tokenizer may have several.
        self._argument_forms: defaultdict[str, ArgumentForm] = defaultdict(ArgumentForm)

    def with_args(self, args: Mapping[str, Any]) -> "ChatTemplate":
        """Return the template with further or other arguments."""
        return ChatTemplate(self._tokenizer, self._text, {**self._given_args, **args})

    def render(self, messages: Messages, tools: Tools, *, generation_prompt: bool) -> str:
        """Return the chat as text; any error of the template is raised unchanged."""
        text: str = self._apply(
            messages, tools, tokenize=False, add_generation_prompt=generation_prompt
        )
        return text

    def has_markers(self, tools: Tools) -> bool:
        """Return whether the template marks generated text with {% generation %}."""
        return _has_markers(self._text_for(tools))

    def generated_ranges(self, messages: Messages, tools: Tools) -> list[tuple[int, int]]:
        """Return start and end of each {% generation %} block in the text of the whole chat.

        Any error of the template is raised unchanged.
        """
        text = self._text_for(tools)
        self._pin_clock(text)
        _, ranges = render_jinja_template(
            conversations=[
                [_without_none(message) for message in self._converted(messages, tools)]
            ],
            tools=self._tools_of(tools),
            chat_template=text,
            return_assistant_tokens_mask=True,
            **{**self._tokenizer.special_tokens_map, **self._args},
        )
        return [(start, end) for start, end in ranges[0]]

    def generation_mask(self, messages: Messages, tools: Tools) -> GenerationMask | None:
        """Return the tokens of the whole chat that are within {% generation %} markers.

        This is transformers' `return_assistant_tokens_mask`, which shares no code with our roles.
        None if the template has no markers. Any error of the template is raised unchanged.
        """
        if not self.has_markers(tools):
            return None
        encoding = self._apply(messages, tools, return_dict=True, return_assistant_tokens_mask=True)
        return GenerationMask(
            input_ids=list(encoding["input_ids"]),
            mask=[bool(one) for one in encoding["assistant_masks"]],
        )

    def _apply(self, messages: Messages, tools: Tools, **options: Any) -> Any:
        return self._apply_unchanged(self._converted(messages, tools), tools, **options)

    def _converted(self, messages: Messages, tools: Tools) -> Messages:
        """Return the messages with roles and arguments of tool calls as the template takes them."""
        text = self._text_for(tools)
        render = partial(self._apply_unchanged, tools=tools, tokenize=False)
        named = [
            {**one, "role": self._role_name(one["role"], text)}
            if one["role"] in OTHER_NAMES_OF_ROLES
            else one
            for one in messages
        ]
        return self._argument_forms[text].convert(named, render)

    def _role_name(self, name: str, text: str) -> str:
        """Return the data's name of a role if the template or a token has it, else ours."""
        is_known = f"<|{name}|>" in self._tokenizer.get_added_vocab() or any(
            f"{quote}{name}{quote}" in text for quote in "'\""
        )
        return name if is_known else OTHER_NAMES_OF_ROLES[name]

    def _apply_unchanged(self, messages: Messages, tools: Tools, **options: Any) -> Any:
        text = self._text_for(tools)
        self._pin_clock(text)
        return self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=self._tools_of(tools),
            chat_template=text,
            **self._args,
            **options,
        )

    def _pin_clock(self, text: str) -> None:
        if CLOCK in text:
            # transformers passes only plain values to a template, so the clock is replaced in the
            # compiled template, which it keeps for the next call.
            _compile_jinja_template(text).globals[CLOCK] = self._clock

    def _text_for(self, tools: Tools) -> str:
        if self._text is not None:
            return self._text
        text: str = self._tokenizer.get_chat_template(None, self._tools_of(tools))
        return text

    def _tools_of(self, tools: Tools) -> list[Any] | None:
        return list(tools or self._tools or ()) or None


def _without_none(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as `apply_chat_template` passes it to templates."""
    return {key: value for key, value in message.items() if value is not None}
