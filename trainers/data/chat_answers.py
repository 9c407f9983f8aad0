"""Find the parts of an answer in the text that a chat template makes of it.

A part is found by rendering the answer again with a marker in its place, or without it: what
changes is the part.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
_ANSWER_MARKER = "\ue000answer\ue001"

Render = Callable[[Mapping[str, Any]], str]
"""Returns the text that an answer adds to its prompt."""


USE_JINJA = "set data.template to a Jinja file that renders `messages` for training"


class ChatRenderingError(ValueError):
    """A chat that the template cannot render in the form that training needs.

    The message gives the reason; `fix` tells the user how to correct the chat.
    """

    def __init__(self, message: str, fix: str = USE_JINJA) -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True, kw_only=True)
class RenderedAnswer:
    """An answer as the template renders it.

    `text` ends with `end_token`, which is None if the template writes none. Its first
    `thinking_end` characters are thinking.
    """

    text: str
    end_token: str | None
    thinking_end: int


class AnswerFinder:
    """Finds text, end token and thinking of answers in what a template makes of them."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        added = tokenizer.added_tokens_decoder.values()
        special = {*tokenizer.all_special_tokens, *(str(t) for t in added if t.special)}
        # Longest first, because one token may be a substring of another.
        one = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
        self._one_special = re.compile(one)
        # Some models end a turn with an added token that is not special.
        every = {*special, *(str(token) for token in added)}
        self._one_added = re.compile("|".join(map(re.escape, sorted(every, key=len, reverse=True))))
        self._added = re.compile(f"(?:{self._one_added.pattern})+")
        # What the template wrote around the last answer; most answers have the same.
        self._surroundings = "", ""

    def find(
        self,
        answer: Mapping[str, Any],
        prompt: str,
        render: Render,
        end_of_chat: str = "",
    ) -> RenderedAnswer:
        """Return the rendered `answer`.

        Args:
            prompt: the text before the answer.
            render: returns the text that an answer adds to `prompt`.
            end_of_chat: tokens that the template writes directly after the end of the last turn.

        Raises:
            ChatRenderingError: the template changes the answer's text, or omits a tool call or
                reasoning.
        """
        text = render(answer)
        opens_thinking = prompt.rstrip().endswith("<think>")
        start, end = self._locate(text, answer, opens_thinking, render)
        _check_shown(answer, text, render)
        completion, end_token = self._cut_after_end(text, end, answer, opens_thinking, end_of_chat)
        return RenderedAnswer(
            text=completion,
            end_token=end_token,
            thinking_end=self._end_of_thinking(answer, text, start, opens_thinking, render),
        )

    def _locate(
        self, text: str, answer: Mapping[str, Any], opens_thinking: bool, render: Render
    ) -> tuple[int, int]:
        """Return start and end of the answer's text in the completion `text`.

        The text is found by what surrounds it, since an answer such as "e" also occurs in
        <|im_end|>.
        """
        head, content = split_thinking(answer, opens_thinking)
        if not content.strip():
            end = len(text.rstrip())
            return end, end
        before, after = self._surroundings
        end = len(text) - len(after)
        is_same = text.startswith(before) and text.endswith(after) and len(before) <= end
        if head or not is_same or text[len(before) : end].strip() != content.strip():
            marked = render({**answer, "content": head + _ANSWER_MARKER})
            before, is_there, after = marked.partition(_ANSWER_MARKER)
            end = len(text) - len(after)
            if (
                not is_there
                or not (text.startswith(before) and text.endswith(after))
                or text[len(before) : end].strip() != content.strip()
            ):
                raise ChatRenderingError(
                    "the chat template does not show the answer's text unchanged"
                )
            if not head:
                self._surroundings = before, after
        return len(before), len(text[:end].rstrip())

    def _end_of_thinking(
        self,
        answer: Mapping[str, Any],
        text: str,
        start: int,
        opens_thinking: bool,
        render: Render,
    ) -> int:
        """Return the length of the thinking at the start of the completion `text`."""
        head, content = split_thinking(answer, opens_thinking)
        if head and content.strip():
            return start
        field = next((name for name in REASONING_FIELDS if _reasoning(answer, name)), "content")
        if field == "content" and not head:
            return 0
        marked = _ANSWER_MARKER if field != "content" else f"<think>{_ANSWER_MARKER}</think>"
        _, is_there, after = render({**answer, field: marked}).partition(_ANSWER_MARKER)
        if not is_there or not text.endswith(after):
            return 0
        end = len(text) - len(after)
        if start < len(text.rstrip()) and not answer.get("tool_calls"):
            return start  # What the template writes between the two belongs to the thinking.
        closing = re.compile(rf"\s*(?:</think>\s*|{self._one_special.pattern})").match(text, end)
        return closing.end() if closing else end

    def end_of_chat(self, whole: str, longer: str, answer: str) -> str:
        """Return the tokens that follow the end of a turn only if it is the last.

        Phi 4 mini ends a turn with <|end|>, and a chat with <|endoftext|> after it.

        Args:
            whole: a rendered chat that ends with the text `answer`.
            longer: the same chat with another turn after it.
        """
        last, followed = (
            self._special_tokens(found.group()) if (found := self._added.match(after)) else []
            for after in (text.rpartition(answer)[2] for text in (whole, longer))
        )
        pairs = zip(last, followed, strict=False)
        num_same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        return "".join(last[num_same:]) if num_same else ""

    def _cut_after_end(
        self,
        text: str,
        end: int,
        answer: Mapping[str, Any],
        opens_thinking: bool,
        end_of_chat: str,
    ) -> tuple[str, str | None]:
        """Return the completion up to and including its end token, and that token.

        Without an end token, return the completion up to the end of its text, and None.

        Some templates write a second token at the end of a chat: Phi 3 ends a turn with <|end|> and
        a newline, and the chat with <|endoftext|>. The token directly after the text ends the turn.
        A turn with tool calls, or with nothing but thinking, ends with the last token.

        Args:
            end: of the answer's text in `text`.
        """
        stripped = text.rstrip()
        only_thinks = not split_thinking(answer, opens_thinking)[1].strip()
        if not answer.get("tool_calls") and not only_thinks:
            found = self._added.match(text, end + _num_spaces(text[end:]))
            if found:
                tokens = found.group().removesuffix(end_of_chat) or found.group()
                return text[: found.start()] + tokens, self._special_tokens(tokens)[-1]
            return text[:end], None
        stripped = stripped.removesuffix(end_of_chat)
        found_last = self._one_special.findall(stripped)
        if found_last and stripped.endswith(found_last[-1]):
            return stripped, found_last[-1]
        return stripped, None

    def _special_tokens(self, text: str) -> list[str]:
        return self._one_added.findall(text)


def _num_spaces(text: str) -> int:
    return len(text) - len(text.lstrip())


def attempt(render: Callable[[], str]) -> str | None:
    """Return the rendering of a changed chat; None if the template rejects the change."""
    try:
        return render()
    except ChatRenderingError:
        return None


def text_of(turn: Mapping[str, Any]) -> str:
    """Return the content of a message; an empty string if it is blank or not a text."""
    content = turn.get("content")
    return content if isinstance(content, str) and content.strip() else ""


def without_one_call(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the message without each one of its tool calls.

    Without the last one, it has no field for them, because some templates reject an empty list.
    """
    calls = list(message.get("tool_calls") or ())
    others = {key: value for key, value in message.items() if key != "tool_calls"}
    for index in range(len(calls)):
        fewer = calls[:index] + calls[index + 1 :]
        yield {**others, "tool_calls": fewer} if fewer else others


def with_other_arguments(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the message with other arguments of its tool calls; None if it has no arguments."""
    calls = list(message.get("tool_calls") or ())
    if all(call.get("function", call).get("arguments") in ({}, "{}") for call in calls):
        return None
    other = {"arguments": {"\ue000": "\ue001"}}
    changed = [
        {**call, "function": {**call["function"], **other}} if "function" in call else call | other
        for call in calls
    ]
    return {**message, "tool_calls": changed}


def _check_shown(answer: Mapping[str, Any], text: str, render: Render) -> None:
    """Check that each tool call and the reasoning change the completion `text`."""
    if any(attempt(partial(render, fewer)) == text for fewer in without_one_call(answer)):
        raise ChatRenderingError("the chat template does not show the answer's tool_calls")
    others = with_other_arguments(answer)
    if others and attempt(partial(render, others)) == text:
        raise ChatRenderingError(
            "the chat template does not show the arguments of the answer's tool_calls"
        )
    for name in REASONING_FIELDS:
        if _reasoning(answer, name) and render({**answer, name: _ANSWER_MARKER}) == text:
            raise ChatRenderingError(
                "the chat template does not show the answer's reasoning",
                f"write it into the content, as <think>...</think>, or list {name} in data.ignore",
            )
    head, _ = split_thinking(answer, opens_thinking=False)
    if head and head.rpartition("</think>")[0].rpartition("<think>")[2].strip() not in text:
        raise ChatRenderingError("the chat template leaves the answer's thinking out")


def thinking_of(turn: Mapping[str, Any]) -> str:
    """Return the thinking of a message, from a field or from its content; "" without any."""
    field = next((text for name in REASONING_FIELDS if (text := _reasoning(turn, name))), "")
    head, _ = split_thinking(turn, opens_thinking=False)
    in_content = head.removesuffix("</think>").lstrip().removeprefix("<think>")
    return (field or in_content).strip()


def split_thinking(answer: Mapping[str, Any], opens_thinking: bool) -> tuple[str, str]:
    """Return the thinking in an answer's content, with its tags, and the rest."""
    content = text_of(answer)
    if not opens_thinking and not content.lstrip().startswith("<think>"):
        return "", content
    thinking, tag, text = content.rpartition("</think>")
    return thinking + tag, text


def _reasoning(answer: Mapping[str, Any], name: str) -> str:
    """Return the reasoning in the field `name`; an empty string without any."""
    value = answer.get(name)
    return value if isinstance(value, str) and value.strip() else ""
