"""Which token of an example is prompt and which is completion.

The prompt is tokenised as one text, exactly as it will be at inference, and its tokens take the
role of the character they start at; the completion is tokenised on its own and ends with the
end-of-sequence token. So no token straddles the border that the loss weight changes at.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
from transformers import PreTrainedTokenizerBase

from trainers.errors import InputError, Problem
from trainers.examples import Example, Message

# Source: github.com/tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT.
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further"
    " context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately"
    " completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:"
)


class Role(IntEnum):
    """What a token is part of. Padding never takes part in anything."""

    PADDING = 0
    SYSTEM = 1
    USER = 2
    TEMPLATE = 3
    COMPLETION = 4


PROMPT_ROLES = (Role.SYSTEM, Role.USER, Role.TEMPLATE)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One tokenised example: `input_ids` and the `Role` of each, of one length (T,)."""

    id: str
    input_ids: list[int]
    roles: list[int]
    num_truncated_tokens: int = 0

    @property
    def num_completion_tokens(self) -> int:
        return sum(role == Role.COMPLETION for role in self.roles)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.roles) - self.num_completion_tokens


@dataclass(frozen=True)
class _Span:
    text: str
    role: Role


_Renderer = Callable[[Example], list[_Span]]

# Stands for the text of field number N while a template is searched for its fields. The spaces
# are ones that a template would trim, and that no template writes itself.
_MARKER = re.compile("(\u2003?)\ue000(\\d+)\ue001(\u2003?)")


class Template:
    """Renders an example's prompt, remembering which characters are the user's.

    Raises:
        InputError: the template does not exist, does not compile, or does not fit the tokenizer.
    """

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = name
        self.tokenizer = tokenizer
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
            self._render = self._render_chat
        elif name in renderers:
            self._render = renderers[name]
        else:
            self._jinja = _compile(Path(name))
            self._render = self._render_jinja
        if tokenizer.eos_token_id is None:
            raise InputError(
                Problem(
                    message="the tokenizer has no end-of-sequence token",
                    fix="set eos_token in the model folder's tokenizer_config.json",
                )
            )

    def encode(self, example: Example, max_length: int) -> Encoded:
        """Prompt and completion tokens of `example`, at most `max_length` of them.

        A long example loses tokens from the left of its prompt: the completion is what is
        learned. Only a completion that leaves no room for one prompt token is cut, at its end.

        Raises:
            InputError: the template cannot show the example.
        """
        prompt_ids, prompt_roles = self._encode_prompt(example)
        completion_ids = self.encode_completion(example.completion)
        total = len(prompt_ids) + len(completion_ids)
        kept_completion = completion_ids[: max_length - 1]
        room = max_length - len(kept_completion)
        kept_from = max(0, len(prompt_ids) - room)
        input_ids = prompt_ids[kept_from:] + kept_completion
        return Encoded(
            id=example.id,
            input_ids=input_ids,
            roles=prompt_roles[kept_from:] + [int(Role.COMPLETION)] * len(kept_completion),
            num_truncated_tokens=total - len(input_ids),
        )

    def encode_prompt(self, example: Example) -> list[int]:
        """The prompt's token ids, the same in training and at inference."""
        return self._encode_prompt(example)[0]

    def encode_completion(self, completion: str) -> list[int]:
        """The completion's token ids with the end-of-sequence token behind them."""
        ids: list[int] = self.tokenizer(completion, add_special_tokens=False)["input_ids"]
        return [*ids, self.tokenizer.eos_token_id]

    def _encode_prompt(self, example: Example) -> tuple[list[int], list[int]]:
        spans = [span for span in self._render(example) if span.text]
        text = "".join(span.text for span in spans)
        # The chat template writes its own start token; the others take the tokenizer's.
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        role_of_character = [span.role for span in spans for _ in span.text]
        ids: list[int] = encoding["input_ids"]
        roles = [
            int(role_of_character[min(start, len(role_of_character) - 1)])
            for start, _ in encoding["offset_mapping"]
        ]
        if self.name != "chat" and _starts_with_bos(self.tokenizer):
            ids = [self.tokenizer.bos_token_id, *ids]
            roles = [int(Role.TEMPLATE), *roles]
        return ids, roles

    def _render_chat(self, example: Example) -> list[_Span]:
        turns = example.messages[:-1]
        fields = _fields_of(turns)

        def render(texts: Sequence[str]) -> str:
            text = self.tokenizer.apply_chat_template(
                _messages_of(turns, texts), tokenize=False, add_generation_prompt=True
            )
            assert isinstance(text, str)
            return text

        try:
            spans = _locate(fields, render) or []
        except jinja2.TemplateError as error:
            raise _misfit(example, f"the chat template refuses the chat: {error}") from None
        shown = [span.text.strip() for span in spans if span.role != Role.TEMPLATE]
        if any(field.text.strip() not in shown for field in fields):
            raise _misfit(example, "the chat template does not show a message's text unchanged")
        return spans

    def _render_jinja(self, example: Example) -> list[_Span]:
        turns = example.messages[:-1]
        texts = (example.prompt, example.instruction or example.prompt, example.input or "")
        fields = [*_fields_of(turns), *(_Span(text, Role.USER) for text in texts)]

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
            # A template may change the texts, such as shorten them: then all of it is the user's.
            return _locate(fields, render) or [
                _Span(render([field.text for field in fields]), Role.USER)
            ]
        except jinja2.TemplateError as error:
            raise _misfit(example, f"{self.name} cannot be rendered: {error}") from None


def _fields_of(turns: Sequence[Message]) -> list[_Span]:
    return [
        _Span(turn.content, Role.SYSTEM if turn.role == "system" else Role.USER) for turn in turns
    ]


def _messages_of(turns: Sequence[Message], contents: Sequence[str]) -> list[dict[str, str]]:
    pairs = zip(turns, contents, strict=True)
    return [{"role": turn.role, "content": content} for turn, content in pairs]


def _locate(fields: Sequence[_Span], render: Callable[[Sequence[str]], str]) -> list[_Span] | None:
    """What `render` makes of the fields' texts, as spans of fields and template in turn.

    Found by rendering a second time with markers for texts, since a short text may occur in the
    template too: "help" in "You are a helpful assistant". None if a text is changed by more than
    trimming, or changes what the template says around it.
    """
    marked = render(
        [f"\u2003\ue000{i}\ue001\u2003" if f.text else "" for i, f in enumerate(fields)]
    )
    before, *rest = _MARKER.split(marked)
    spans = [_Span(before, Role.TEMPLATE)]
    for lead, index, trail, after in zip(*(rest[part::4] for part in range(4)), strict=True):
        field = fields[int(index)]
        text = field.text if lead else field.text.lstrip()
        spans.append(_Span(text if trail else text.rstrip(), field.role))
        spans.append(_Span(after, Role.TEMPLATE))
    whole = "".join(span.text for span in spans)
    return spans if whole == render([field.text for field in fields]) else None


def _misfit(example: Example, message: str) -> InputError:
    return InputError(
        Problem(message=message, where=example.id, fix="set data.template to alpaca or plain")
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


def _starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids: list[int] = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def _compile(path: Path) -> Any:
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(
            Problem(
                message=f"data.template must be chat, alpaca, plain or a Jinja file, got {path}",
                fix="give the path of a UTF-8 file that exists",
            )
        ) from None
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(
            Problem(
                message=f"not a valid template: {error.message}", where=f"{path}:{error.lineno}"
            )
        ) from None
