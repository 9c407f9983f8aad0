"""Find inconsistencies between the tools, tool calls and results of a chat."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, takewhile
from typing import Any

from trainers.data.examples import Message

UNLISTED = "call of a tool that the record does not list"
NO_RESULT = "call without a result before the next turn"
UNKNOWN_ID = "result with an unknown tool_call_id"
SYSTEM_BETWEEN = "system turn between a call and its result"


def find_tool_faults(turns: Sequence[Message], tools: Sequence[Any] | None) -> set[str]:
    """Return the kinds of inconsistencies of a chat's tool calls.

    A call in the last turn needs no result: it is the answer. Names are only compared if the record
    lists tools and all of them have a name.
    """
    return set(_faults(turns, _names(tools or ())))


def _faults(turns: Sequence[Message], tool_names: set[str]) -> Iterator[str]:
    ids: set[str] = set()
    for index, turn in enumerate(turns):
        calls = turn.fields.get("tool_calls") or ()
        ids |= {str(call["id"]) for call in calls if "id" in call}
        if tool_names and not _names(calls) <= tool_names:
            yield UNLISTED
        if turn.fields.get("tool_call_id", "") not in {"", *ids}:
            yield UNKNOWN_ID
        if not calls or index == len(turns) - 1:
            continue
        next_roles = (one.role for one in turns[index + 1 :])
        following = list(takewhile(lambda role: role in ("tool", "system"), next_roles))
        if following.count("tool") < len(calls):
            yield NO_RESULT
        if ("system", "tool") in pairwise(following):
            yield SYSTEM_BETWEEN


def _names(calls_or_tools: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the names of the functions; none if one has no name."""
    functions = [one.get("function", one) for one in calls_or_tools]
    if not all(isinstance(one, dict) and "name" in one for one in functions):
        return set()
    return {str(one["name"]) for one in functions}
