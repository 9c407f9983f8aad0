"""Which token of an example is prompt and which is completion.

The prompt is tokenised as one text, exactly as it will be at inference, and its tokens take the
role of the character they start at; the completion is tokenised on its own and ends with the
end-of-sequence token. So no token straddles the border that the loss weight changes at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
from transformers import PreTrainedTokenizerBase

from trainers.errors import InputError, Problem
from trainers.examples import Example

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


class Template:
    """Renders an example's prompt, remembering which characters are the user's.

    Raises:
        InputError: the template does not exist, does not compile, or does not fit the tokenizer.
    """

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = name
        self.tokenizer = tokenizer
        renderers: dict[str, Callable[[Example], list[_Span]]] = {
            "plain": _render_plain,
            "alpaca": _render_alpaca,
        }
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
        learned. Only a completion that alone exceeds `max_length` is cut, at its end.
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
        encoding = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True
        )
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
        messages: list[dict[str, str]] = [
            {"role": m.role, "content": m.content} for m in example.messages[:-1]
        ]
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        spans: list[_Span] = []
        position = 0
        for message in messages:
            # Templates may strip what they are given, so look for the stripped content.
            content = message["content"].strip()
            start = text.find(content, position)
            if start < 0:
                raise InputError(
                    Problem(
                        message="the chat template does not show a message's text unchanged",
                        where=example.id,
                        fix="set data.template to alpaca or plain",
                    )
                )
            spans.append(_Span(text[position:start], Role.TEMPLATE))
            role = Role.SYSTEM if message["role"] == "system" else Role.USER
            spans.append(_Span(content, role))
            position = start + len(content)
        spans.append(_Span(text[position:], Role.TEMPLATE))
        return spans

    def _render_jinja(self, example: Example) -> list[_Span]:
        text = self._jinja.render(
            prompt=example.prompt,
            instruction=example.instruction or example.prompt,
            input=example.input or "",
            messages=[{"role": m.role, "content": m.content} for m in example.messages[:-1]],
        )
        start = text.find(example.prompt)
        if start < 0:
            return [_Span(text, Role.USER)]
        end = start + len(example.prompt)
        return [
            _Span(text[:start], Role.TEMPLATE),
            _Span(text[start:end], Role.USER),
            _Span(text[end:], Role.TEMPLATE),
        ]


def _render_plain(example: Example) -> list[_Span]:
    return [_Span(example.prompt, Role.USER), _Span("\n\n", Role.TEMPLATE)]


def _render_alpaca(example: Example) -> list[_Span]:
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
    except OSError:
        raise InputError(
            Problem(
                message=f"data.template must be chat, alpaca, plain or a Jinja file, got {path}",
                fix="give the path of a file that exists",
            )
        ) from None
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(
            Problem(message=f"not a valid template: {error.message}", where=f"{path}:{error.lineno}")
        ) from None
