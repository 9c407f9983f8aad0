"""Which token of an example is prompt and which is completion.

The prompt is tokenised as one text, exactly as it will be at inference, and its tokens take the
role of the character they start at; the completion is tokenised on its own and ends with the
end-of-sequence token. So no token straddles the border that the loss weight changes at.
"""

import itertools
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from trainers.config import CompletionTurns
from trainers.data.examples import Example, Message
from trainers.data.template_spans import (
    ALPACA_WITH_INPUT,
    ALPACA_WITHOUT_INPUT,
    FieldFinder,
    compile_template,
    depends_on_texts,
    describe_error,
    read_template,
)
from trainers.foundation.errors import InputError, Problem


class Role(IntEnum):
    """What a token is part of. Padding never takes part in anything."""

    PADDING = 0
    SYSTEM = 1
    USER = 2
    TEMPLATE = 3
    COMPLETION = 4


# Raise whenever the code here or in template_spans.py would give other tokens or roles.
TOKENS_VERSION = 1

PROMPT_ROLES = (Role.SYSTEM, Role.USER, Role.TEMPLATE)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One tokenised example: `input_ids` and the `Role` of each, of one length (T,)."""

    id: str
    input_ids: list[int] | NDArray[np.int32]
    roles: list[int] | NDArray[np.int8]
    num_truncated_tokens: int = 0

    @property
    def num_completion_tokens(self) -> int:
        return int(np.count_nonzero(np.asarray(self.roles) == Role.COMPLETION))

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.roles) - self.num_completion_tokens


@dataclass(frozen=True, kw_only=True)
class WholeExample:
    """All tokens of an example, whatever its length: the prompt's with their roles, then those of
    the last turn, which end with the end-of-sequence token.
    """

    id: str
    prompt_ids: list[int]
    prompt_roles: list[int]
    completion_ids: list[int]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    def cut_to(self, max_length: int) -> Encoded:
        """At most `max_length` of the tokens.

        The prompt loses tokens from its left: the completion is what is learned. Only a
        completion that leaves no room for one prompt token is cut, at its end.
        """
        completion_ids = self.completion_ids[: max_length - 1]
        first = max(0, len(self.prompt_ids) + len(completion_ids) - max_length)
        input_ids = self.prompt_ids[first:] + completion_ids
        return Encoded(
            id=self.id,
            input_ids=input_ids,
            roles=self.prompt_roles[first:] + [int(Role.COMPLETION)] * len(completion_ids),
            num_truncated_tokens=self.num_tokens - len(input_ids),
        )


@dataclass(frozen=True)
class _Span:
    text: str
    role: Role


_Renderer = Callable[[Example], list[_Span]]


class Template:
    """Renders an example's prompt, remembering which characters are the user's.

    With `completion_turns` "all" the assistant turns within the prompt are completion as well,
    each with the end-of-turn token behind it. The tokens are the same either way.

    Raises:
        InputError: the template does not exist, does not compile, or does not fit the tokenizer.
    """

    def __init__(
        self,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        completion_turns: CompletionTurns = "last",
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.completion_turns = completion_turns
        self.source: str | None = None
        self._fields = FieldFinder()
        self._is_known_to_depend = False
        renderers: dict[str, _Renderer] = {"plain": _render_plain, "alpaca": _render_alpaca}
        self._render: _Renderer
        if name == "chat":
            if not tokenizer.chat_template:
                raise InputError(
                    Problem(
                        message="data.template is chat, but the tokenizer has no chat template",
                        fix="set data.template to alpaca or plain",
                    )
                )
            self.source = json.dumps(tokenizer.chat_template)
            self._render = self._render_chat
        elif name in renderers:
            self._render = renderers[name]
        else:
            self.source = read_template(Path(name))
            self._jinja = compile_template(Path(name), self.source)
            self._render = self._render_jinja
        if tokenizer.eos_token_id is None:
            raise InputError(
                Problem(
                    message="the tokenizer has no end-of-sequence token",
                    fix="set eos_token in the model folder's tokenizer_config.json",
                )
            )
        # The chat template writes its own start token; the others take the tokenizer's.
        adds_bos = name != "chat" and starts_with_bos(tokenizer)
        self._bos: list[int] = [tokenizer.bos_token_id] if adds_bos else []
        self._end_ids = {tokenizer.eos_token_id} | {
            id for id, token in tokenizer.added_tokens_decoder.items() if token.special
        }

    def encode(self, example: Example, max_length: int) -> Encoded:
        """The tokens of `example`, cut to `max_length` as `WholeExample.cut_to` does.

        Raises:
            InputError: the template cannot show the example.
        """
        return self.tokenize([example])[0].cut_to(max_length)

    def tokenize(self, examples: Sequence[Example]) -> list[WholeExample]:
        """All tokens of each example. Several at once take less time than one by one.

        Raises:
            InputError: the template cannot show an example, or not all of its assistant turns
                that are to be completion.
        """
        prompts = self._tokenize_prompts(examples)
        completions = self._token_ids([example.completion for example in examples])
        return [
            WholeExample(
                id=example.id,
                prompt_ids=prompt_ids,
                prompt_roles=prompt_roles,
                completion_ids=[*completion_ids, self.tokenizer.eos_token_id],
            )
            for example, (prompt_ids, prompt_roles), completion_ids in zip(
                examples, prompts, completions, strict=True
            )
        ]

    def render_prompt(self, example: Example) -> str:
        """The prompt as text, without the start token that `encode_prompt` may put before it.

        Raises:
            InputError: the template cannot show the example.
        """
        return "".join(span.text for span in self._render(example))

    def encode_prompt(self, example: Example) -> list[int]:
        """The prompt's token ids, the same in training and at inference."""
        return self._tokenize_prompts([example])[0][0]

    def encode_completion(self, completion: str) -> list[int]:
        """The completion's token ids with the end-of-sequence token behind them."""
        return [*self._token_ids([completion])[0], self.tokenizer.eos_token_id]

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        encoding = self.tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        ids: list[list[int]] = encoding["input_ids"]
        return ids

    def _tokenize_prompts(self, examples: Sequence[Example]) -> list[tuple[list[int], list[int]]]:
        """Token ids and roles of each example's prompt."""
        rendered = [[span for span in self._render(e) if span.text] for e in examples]
        encoding = self.tokenizer(
            ["".join(span.text for span in spans) for spans in rendered],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        prompts = []
        for example, spans, ids, offsets in zip(
            examples, rendered, encoding["input_ids"], encoding["offset_mapping"], strict=True
        ):
            ends = list(itertools.accumulate(len(span.text) for span in spans))
            span_of_token = [min(bisect_right(ends, start), len(ends) - 1) for start, _ in offsets]
            roles = [int(spans[index].role) for index in span_of_token]
            if self.completion_turns == "all":
                self._mark_ends_of_turns(example, spans, ids, offsets, roles)
            prompts.append((self._bos + ids, [int(Role.TEMPLATE)] * len(self._bos) + roles))
        return prompts

    def _mark_ends_of_turns(
        self,
        example: Example,
        spans: Sequence[_Span],
        ids: Sequence[int],
        offsets: Sequence[tuple[int, int]],
        roles: list[int],
    ) -> None:
        """Give the end-of-turn token after each assistant turn, and what white space the template
        puts before it, to the completion: the model must produce both.
        """
        found = [index for index, span in enumerate(spans) if span.role == Role.COMPLETION]
        if len(found) != sum(turn.role == "assistant" for turn in example.messages[:-1]):
            raise _unseen_turn(example)
        text = "".join(span.text for span in spans)
        starts = [start for start, _ in offsets]
        for index in found:
            end_of_text = sum(len(span.text) for span in spans[: index + 1])
            position = bisect_left(starts, end_of_text)
            for token in range(position, len(ids)):
                roles[token] = int(Role.COMPLETION)
                if ids[token] in self._end_ids:
                    break
                if text[slice(*offsets[token])].strip():
                    raise self._unended_turn(example)
            else:
                raise self._unended_turn(example)

    def _unended_turn(self, example: Example) -> InputError:
        return InputError(
            Problem(
                message=(
                    "data.completion_turns is all, but the template puts no special token right"
                    " behind an earlier assistant turn: the model would not learn to end it"
                ),
                where=example.id,
                fix=f"let it write {self.tokenizer.eos_token} there",
            )
        )

    def _render_chat(self, example: Example) -> list[_Span]:
        turns = example.messages[:-1]
        fields = self._fields_of(turns)

        def render(texts: Sequence[str]) -> str:
            text = self.tokenizer.apply_chat_template(
                _messages_of(turns, texts), tokenize=False, add_generation_prompt=True
            )
            assert isinstance(text, str)
            return text

        try:
            spans, _ = self._located(turns, fields, render)
        except Exception as error:  # A template is a program: it may fail in any way.
            fault = describe_error(error)
            raise _misfit(example, f"the chat template refuses the chat: {fault}") from None
        if not spans and any(field.role == Role.COMPLETION for field in fields):
            raise _unseen_turn(example)
        shown = [span.text.strip() for span in spans if span.role != Role.TEMPLATE]
        if any(field.text.strip() not in shown for field in fields):
            raise _misfit(example, "the chat template does not show a message's text unchanged")
        return spans

    def _render_jinja(self, example: Example) -> list[_Span]:
        turns = example.messages[:-1]
        texts = (example.prompt, example.instruction or example.prompt, example.input or "")
        fields = [*self._fields_of(turns), *(_Span(text, Role.USER) for text in texts)]

        def render(texts: Sequence[str]) -> str:
            *contents, prompt, instruction, input = texts
            text: str = self._jinja.render(
                prompt=prompt,
                instruction=instruction,
                input=input,
                messages=_messages_of(turns, contents),
            )
            return text

        try:
            spans, whole = self._located(turns, fields, render)
        except Exception as error:
            fault = describe_error(error)
            raise _misfit(example, f"{self.name} cannot be rendered: {fault}") from None
        if not whole.strip():
            raise _misfit(example, f"{self.name} renders an empty prompt")
        if not self._is_known_to_depend and not depends_on_texts(whole, len(fields), render):
            fault = "renders the same prompt whatever prompt, instruction, input and messages say"
            raise _misfit(example, f"{self.name} {fault}")
        self._is_known_to_depend = True
        # A template may change the texts, such as shorten them: then all of it is the user's.
        return spans or [_Span(whole, Role.USER)]

    def _fields_of(self, turns: Sequence[Message]) -> list[_Span]:
        role_of = {
            "system": Role.SYSTEM,
            "user": Role.USER,
            "assistant": Role.COMPLETION if self.completion_turns == "all" else Role.USER,
        }
        return [_Span(turn.content, role_of[turn.role]) for turn in turns]

    def _located(
        self,
        turns: Sequence[Message],
        fields: Sequence[_Span],
        render: Callable[[Sequence[str]], str],
    ) -> tuple[list[_Span], str]:
        """Spans of fields and template in turn, none if they cannot be told apart; the text."""
        pieces, whole = self._fields.find(
            tuple(turn.role for turn in turns), [field.text for field in fields], render
        )
        spans = [
            _Span(text, Role.TEMPLATE if index is None else fields[index].role)
            for text, index in pieces
        ]
        return spans, whole


def _messages_of(turns: Sequence[Message], contents: Sequence[str]) -> list[dict[str, str]]:
    pairs = zip(turns, contents, strict=True)
    return [{"role": turn.role, "content": content} for turn, content in pairs]


def _misfit(example: Example, message: str) -> InputError:
    return InputError(
        Problem(message=message, where=example.id, fix="set data.template to alpaca or plain")
    )


def _unseen_turn(example: Example) -> InputError:
    return InputError(
        Problem(
            message=(
                "data.completion_turns is all, but the template does not show every assistant"
                " turn unchanged: some strip the thinking of earlier ones, or leave them out"
            ),
            where=example.id,
            fix="set data.template to a Jinja file that renders `messages` as they are",
        )
    )


def _refuse_history(example: Example, name: str) -> None:
    if len(example.messages) > 2:
        raise InputError(
            Problem(
                message=(
                    f"data.template {name} shows one user turn, but the chat has"
                    f" {len(example.messages)} messages: the others would be lost"
                ),
                where=example.id,
                fix="set data.template to chat or to a Jinja file that renders `messages`",
            )
        )


def _render_plain(example: Example) -> list[_Span]:
    _refuse_history(example, "plain")
    return [_Span(example.prompt, Role.USER), _Span("\n\n", Role.TEMPLATE)]


def _render_alpaca(example: Example) -> list[_Span]:
    _refuse_history(example, "alpaca")
    instruction = example.instruction or example.prompt
    fields = [("{instruction}", instruction)]
    template = ALPACA_WITHOUT_INPUT
    if example.input:
        template = ALPACA_WITH_INPUT
        fields.append(("{input}", example.input))
    spans: list[_Span] = []
    for placeholder, text in fields:
        before, template = template.split(placeholder)
        spans += [_Span(before, Role.TEMPLATE), _Span(text, Role.USER)]
    return [*spans, _Span(template, Role.TEMPLATE)]


def starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts its start token before every text."""
    ids: list[int] = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
