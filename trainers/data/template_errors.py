"""Errors for examples that a template cannot render, each with a fix for this example."""

import json

from trainers.data.chat_answers import USE_JINJA, ChatRenderingError
from trainers.data.examples import Example
from trainers.data.single_turn import is_single_turn
from trainers.foundation.errors import InputError, Problem


def misfit_error(example: Example, error: ChatRenderingError, tools_fix: str) -> InputError:
    """Return the error for a chat that its template cannot render, with a fix for this chat.

    Args:
        tools_fix: the advice for a template that does not show tools.
    """
    fix = error.fix
    if fix == USE_JINJA and _concerns_tools(example, error):
        fix = tools_fix
    if example.tools and "tools" in str(error):
        fix = f"{fix}, or list tools in data.ignore"
    elif is_single_turn(example) and fix == USE_JINJA and not example.messages[-1].fields:
        fix = f"{fix}, to alpaca or to plain"
    elif example.messages[0].role == "system" and "ystem" in str(error):
        fix = f"put the system text into the first user turn, or {fix}"
    return InputError(Problem(message=str(error), where=example.id, fix=fix))


def _concerns_tools(example: Example, error: ChatRenderingError) -> bool:
    """Return whether a template does not show tools, a call or the text of a tool."""
    results = [turn for turn in example.messages if turn.role == "tool"]
    has_tools = example.tools or results or any("tool_calls" in m.fields for m in example.messages)
    names = ["tool", *(json.dumps(one.content[:40], ensure_ascii=False) for one in results)]
    return bool(has_tools) and any(name in str(error) for name in names)


def template_error(example: Example, message: str) -> InputError:
    fix = "correct the template"
    if is_single_turn(example):
        fix += ", or set data.template to alpaca or plain"
    return InputError(Problem(message=message, where=example.id, fix=fix))


def changed_turn_error(example: Example) -> InputError:
    return InputError(
        Problem(
            message=(
                "data.completion_turns is all, but the template changes or omits an assistant"
                " turn; some templates remove the thinking of earlier turns"
            ),
            where=example.id,
            fix="set data.template to a Jinja file that renders `messages` unchanged, or"
            " data.completion_turns to each",
        )
    )


def changed_text_error(example: Example) -> InputError:
    return InputError(
        Problem(
            message="the data gives weights to messages, but the template changes their texts, so"
            " the tokens of the messages are not known",
            where=example.id,
            fix="set data.template to a Jinja file that renders `messages` unchanged, or list"
            " weight in data.ignore",
        )
    )
