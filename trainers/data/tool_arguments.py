"""The arguments of tool calls in the form that a template takes: objects, or texts of JSON."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainers.data.template_spans import text_or_none

Messages = Sequence[Mapping[str, Any]]


class ArgumentForm:
    """Chooses between objects and texts by rendering a template with both.

    Most templates convert objects to JSON. Others join the arguments with text, as OpenAI's format
    has them: DeepSeek V3. With objects these fail, or show them in Python's notation.
    """

    def __init__(self) -> None:
        self._is_text: bool | None = None

    def convert(self, messages: Messages, render: Callable[[Messages], str]) -> Messages:
        """Return the messages with arguments in the form that `render` takes.

        Texts of the data stay as they are where the template takes texts.
        """
        if not any(_arguments(messages)):
            return messages
        objects = with_objects(messages)
        if self._is_text is None:
            self._is_text = _takes_text(messages, objects, render)
        return _with_texts(messages) if self._is_text else objects


def with_objects(messages: Messages) -> Messages:
    """Return the messages with the arguments of tool calls as objects."""
    return _with_arguments(messages, lambda one: json.loads(one) if isinstance(one, str) else one)


def _with_texts(messages: Messages) -> Messages:
    return _with_arguments(
        messages, lambda one: one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)
    )


def _takes_text(
    messages: Messages, objects: Messages, render: Callable[[Messages], str]
) -> bool | None:
    """Return whether a template takes texts; None if these messages do not show it."""
    shown = text_or_none(lambda: render(objects))
    in_python = [
        str(one) for one in _arguments(objects) if str(one) != json.dumps(one, ensure_ascii=False)
    ]
    if shown is None or any(text in shown for text in in_python):
        return text_or_none(lambda: render(_with_texts(messages))) is not None or None
    others = _with_arguments(objects, lambda _: {"a": "\ue000"})
    return None if text_or_none(lambda: render(others)) == shown else False


def _arguments(messages: Messages) -> Iterator[Any]:
    for message in messages:
        for call in message.get("tool_calls") or ():
            yield call.get("function", call).get("arguments")


def _with_arguments(messages: Messages, convert: Callable[[Any], Any]) -> Messages:
    return [
        {**one, "tool_calls": [_converted(call, convert) for call in one["tool_calls"]]}
        if one.get("tool_calls")
        else one
        for one in messages
    ]


def _converted(call: Mapping[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    if "function" in call:
        return {**call, "function": _converted(call["function"], convert)}
    return {**call, "arguments": convert(call["arguments"])}
