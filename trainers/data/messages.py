"""Parse the messages and texts of one record."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainers.data.chat_answers import REASONING_FIELDS
from trainers.data.examples import OTHER_NAMES_OF_ROLES, Message, MessageRole, PartWeight
from trainers.data.record_fields import (
    DAMAGED,
    FLAG_FIELDS,
    WEIGHT_FIELDS,
    FieldParser,
    format_value,
    ignore_fix,
    is_meaningful,
)
from trainers.foundation.jsonl import load_json
from trainers.foundation.suggestions import did_you_mean

_ROLE_OF: Mapping[str, MessageRole] = {
    **{"system": "system", "developer": "system"},
    **{"user": "user", "human": "user"},
    **{"assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant"},
    **{"tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool"},
    "function_call": "assistant",
}
ROLE_FIELDS = ("role", "from")
CONTENT_FIELDS = ("content", "value")
# An answer that is nothing but end tokens, such as <|im_end|> and </s>. DeepSeek's have other bars.
_END_TOKENS = re.compile(
    r"\s*(?:(?:<[|\uff5c][\w\u2581]*(?:end|eo[stm])[\w\u2581]*[|\uff5c]>"
    r"|<\|return\|>|</s>|<eos>|<end_of_turn>|<turn\|>|\[EOS\])\s*)+",
    re.IGNORECASE,
)

# Fields of gpt-oss's format that say what a message is, such as thinking.
_HARMONY_FIELDS = ("channel", "recipient")
# The answer continues a text that is given (Mistral), or is not complete (ChatGPT's exports).
_SWITCHES = (("prefix", True), ("end_turn", False))
# Message fields that chat templates use unchanged.
TEMPLATE_FIELDS = ("tool_calls", "tool_call_id", "name", *REASONING_FIELDS)


class MessageParser(FieldParser):
    """Parses the messages and texts of one record."""

    def turns(self, value: Any, name: str) -> list[Message]:
        value = self.json_value(value, name)
        if value is DAMAGED:
            return []
        if not isinstance(value, list):
            self.add_problem(f"{name} must be a list of messages, got {format_value(value)}")
            return []
        last = len(value) - 1
        return [
            self._turn(turn, f"{name}[{index}]", is_last=index == last)
            for index, turn in enumerate(value)
        ]

    def _turn(self, turn: Any, name: str, *, is_last: bool) -> Message:
        if not isinstance(turn, dict):
            self.add_problem(
                f"{name} must be an object with role and content, got {format_value(turn)}"
            )
            return Message(role="user", content="")
        fields = self.used_fields(turn)
        role_field = next((key for key in reversed(ROLE_FIELDS) if key in fields), "role")
        content_field = next((key for key in reversed(CONTENT_FIELDS) if key in fields), "content")
        given = fields.get(role_field)
        is_role = isinstance(given, str) and given in _ROLE_OF
        if not is_role:
            known = ", ".join(_ROLE_OF)
            self.add_problem(
                f"{name}.{role_field} must be one of {known}, got {format_value(given)}",
                did_you_mean(str(given), _ROLE_OF),
            )
        role = _ROLE_OF.get(str(given), "user")
        extra = self._template_fields(fields, name, role if is_role else None)
        train, weight = self._turn_weight(fields, name, role)
        if is_role and given in OTHER_NAMES_OF_ROLES:
            extra["role"] = given
        content_name = f"{name}.{content_field}"
        value = fields.get(content_field)
        parts: tuple[PartWeight, ...] = ()
        if isinstance(value, list):
            if role == "assistant":
                value = self._without_thinking(value, content_name, extra)
            value, parts = self._joined_parts(value, content_name)
        if train is None and role == "assistant":
            train = self._is_trained(str(value), parts, extra)
        if given == "function_call":
            extra["tool_calls"] = self._function_call(value, name)
            content = ""
        elif "tool_calls" in extra:
            content = self.text("" if value is None else value, content_name, True)
        elif is_last and role == "assistant":
            content = self.answer_text(value, content_name)
        else:
            # Templates show an empty system turn, and a tool may return nothing.
            may_be_empty = role in ("system", "tool")
            content = self.text(value, content_name, may_be_empty, is_answer=role == "assistant")
        self._check_rest_of_turn(fields, {role_field, content_field}, name)
        return Message(
            role=role,
            content=content,
            fields=extra,
            train=train,
            weight=weight,
            part_weights=parts,
        )

    def _check_rest_of_turn(self, fields: dict[str, Any], used: set[str], name: str) -> None:
        """Reject unused fields of a message that appear to have a meaning for training."""
        known = {*used, "function_call", *TEMPLATE_FIELDS, *WEIGHT_FIELDS}
        for key in sorted(fields.keys() - known):
            if fields[key] in ("", [], {}) or (key, fields[key]) == ("prefix", False):
                continue
            if is_meaningful(key) or key in _HARMONY_FIELDS or (key, fields[key]) in _SWITCHES:
                self.add_problem(f"{name}.{key} is not supported", ignore_fix(key, known))
            else:
                self.ignored.add(key)

    def _without_thinking(self, parts: list[Any], name: str, fields: dict[str, Any]) -> list[Any]:
        """Return content parts without the thinking at their start, which is added to `fields`.

        Such a part has its text in `thinking` (Anthropic, Mistral) or `text`.
        """
        thinking = list(itertools.takewhile(is_thinking, parts))
        if not thinking or any(fields.get(field) for field in REASONING_FIELDS):
            return parts
        texts = []
        for index, part in enumerate(thinking):
            given = self.used_fields(part)
            field = "text" if "text" in given else "thinking"
            texts.append(self.text(given.get(field), f"{name}[{index}].{field}"))
            for key in sorted(given.keys() - {"type", field, "signature"}):
                self.add_problem(f"{name}[{index}].{key} is not supported", ignore_fix(key))
        fields["reasoning_content"] = "\n".join(texts)
        return parts[len(thinking) :]

    def _is_trained(
        self, content: str, parts: Sequence[PartWeight], fields: Mapping[str, Any]
    ) -> bool | None:
        """Return whether the weights of its parts select an answer; None if they do not decide.

        They exclude an answer if all its text has weight 0.
        """
        if any(part.weight > 0 for part in parts):
            return True
        if not parts or any(fields.get(name) for name in ("tool_calls", *REASONING_FIELDS)):
            return None
        starts = [0, *(part.stop for part in parts)]
        stops = [*(part.start for part in parts), len(content)]
        others = "".join(content[a:b] for a, b in zip(starts, stops, strict=True))
        return None if others.strip() else False

    def _template_fields(
        self, fields: dict[str, Any], name: str, role: MessageRole | None
    ) -> dict[str, Any]:
        """Return a message's further fields for the chat template; `role` None: unknown."""
        extra = {
            key: fields[key]
            for key in TEMPLATE_FIELDS
            if fields.get(key) and (not isinstance(fields[key], str) or fields[key].strip())
        }
        for key in extra.keys() - {"tool_calls"}:
            extra[key] = self.text(extra[key], f"{name}.{key}")
        for key in sorted(extra.keys() - {"name"}):
            owner = "tool" if key == "tool_call_id" else "assistant"
            if role not in (owner, None):
                article = "a" if owner == "tool" else "an"
                self.add_problem(f"{name}.{key} must be in {article} {owner} turn", ignore_fix(key))
        if "function_call" in fields:
            if "tool_calls" in extra:
                self.add_problem(
                    f"{name} has both tool_calls and function_call",
                    "list one of them in data.ignore",
                )
            extra["tool_calls"] = self._function_call(fields["function_call"], name)
        elif "tool_calls" in extra:
            extra["tool_calls"] = self._tool_calls(extra["tool_calls"], f"{name}.tool_calls")
        if sum(key in extra for key in REASONING_FIELDS) > 1:
            self.add_problem(f"{name} has its reasoning in two fields", "list one in data.ignore")
        for first, second in (ROLE_FIELDS, CONTENT_FIELDS):
            if first in fields and second in fields and fields[first] != fields[second]:
                self.add_problem(
                    f"{name} has both {first} and {second}", "list one of them in data.ignore"
                )
        return extra

    def _turn_weight(
        self, fields: dict[str, Any], name: str, role: MessageRole
    ) -> tuple[bool | None, float | None]:
        """Return whether the data selects a turn for training, and its weight if that is above 0.

        `train: true` selects an assistant turn, whose tokens keep the weights of their roles. For
        other turns it is weight 1.
        """
        given = {
            key: self.weight(fields[key], f"{name}.{key}", is_flag=key in FLAG_FIELDS)
            for key in WEIGHT_FIELDS
            if fields.get(key) is not None
        }
        numbers = {weight for key, weight in given.items() if key not in FLAG_FIELDS}
        if len(numbers) > 1 or len({weight > 0 for weight in given.values()}) > 1:
            shown = ", ".join(f"{key} {format_value(fields[key])}" for key in given)
            self.add_problem(f"{name} has contradictory weights: {shown}", "keep one of them")
        if not given:
            return None, None
        if not all(given.values()):
            return False, None
        is_assistant = role == "assistant"
        return is_assistant or None, numbers.pop() if numbers else None if is_assistant else 1.0

    def _tool_calls(self, value: Any, name: str) -> list[Any]:
        """Return tool calls as a list of objects, each with the function's name and arguments.

        The arguments are an object, or a JSON text, as in OpenAI's format.
        """
        calls = self.json_value(value, name)
        if calls is DAMAGED:
            return []
        functions = [
            call.get("function", call) if isinstance(call, dict) else {}
            for call in (calls if isinstance(calls, list) else [None])
        ]
        if not all(
            isinstance(one, dict) and {"name", "arguments"} <= one.keys() for one in functions
        ):
            self.add_problem(
                f"{name} must be a list of calls with name and arguments, got {format_value(value)}"
            )
            return []
        self.check_characters(calls, name)
        for index, function in enumerate(functions):
            place = f"{name}[{index}]{'' if function is calls[index] else '.function'}"
            self._check_arguments(function["arguments"], f"{place}.arguments")
        return list(self.without_nulls(calls))

    def _check_arguments(self, value: Any, name: str) -> None:
        arguments = self.json_value(value, name)
        if isinstance(arguments, dict):
            if isinstance(value, str):  # The texts of objects are already checked.
                self.check_characters(arguments, name)
        elif arguments is not DAMAGED:
            self.add_problem(
                f"{name} must be an object, or the JSON of one, got {format_value(arguments)}"
            )

    def _function_call(self, value: Any, name: str) -> list[Any]:
        """Return ShareGPT's function_call turn, or that field of OpenAI's, as tool calls."""
        call = self.json_value(value, name)
        if call is DAMAGED:
            return []
        calls = self._tool_calls(call if isinstance(call, list) else [call], name)
        return [{"type": "function", "function": one} for one in calls]

    def answer_text(self, value: Any, name: str) -> str:
        """Return the text of the answer; report an empty one unless such records are dropped."""
        if value is not None and not (isinstance(value, str) and _is_empty_answer(value)):
            return self.text(value, name)
        self.reject_empty(f"{name} must not be empty, got {format_value(value)}", "fill it in")
        return ""

    def text(
        self, value: Any, name: str, may_be_empty: bool = False, is_answer: bool = False
    ) -> str:
        if isinstance(value, list):
            value, weights = self._joined_parts(value, name)
            if weights:
                self.add_problem(f"{name}: only the content of messages has parts with weights")
        if not isinstance(value, str):
            self.add_problem(f"{name} must be a string, got {format_value(value)}")
            return ""
        is_empty = _is_empty_answer(value) if is_answer else not value.strip()
        if is_empty and not may_be_empty:
            message = f"{name} must not be empty, got {format_value(value)}"
            self.add_problem(message, "fill it in or drop the record")
        self.check_characters(value, name)
        return value

    def _joined_parts(self, parts: list[Any], name: str) -> tuple[str, tuple[PartWeight, ...]]:
        """Return the joined texts of content parts, and the weights of those that have one.

        A part is `{"type": "text", "text": ...}`, and may have a `weight`.
        """
        text = ""
        weights = []
        for index, part in enumerate(parts):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind != "text" or not isinstance(part.get("text"), str):
                self.add_problem(
                    f"{name}[{index}] must be a part of type text, got {format_value(part)}"
                )
                text += "?"  # One problem is enough: the text is not empty.
                continue
            start, text = len(text), text + part["text"]
            given = self.used_fields(part)
            for key in sorted(given.keys() - {"type", "text", "weight"}):
                self.add_problem(f"{name}[{index}].{key} is not supported", ignore_fix(key))
            if "weight" in given:
                weight = self.weight(given["weight"], f"{name}[{index}].weight")
                weights.append(PartWeight(start=start, stop=len(text), weight=weight))
        return text, tuple(weights)


def is_thinking(part: Any) -> bool:
    """Return whether a content part is thinking."""
    return isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")


def _is_empty_answer(text: str) -> bool:
    return not text.strip() or _END_TOKENS.fullmatch(text) is not None


def is_chat(value: Any) -> bool:
    """Return whether a field has messages instead of a text: a list, or its JSON as text.

    Damaged JSON, and the form in which Python prints a list, count if they begin with a role.
    """
    if isinstance(value, str) and re.match(r"\s*\[\s*\{", value):
        try:
            value = load_json(value)
        except ValueError:
            return re.match(r"\s*\[\s*\{\s*[\"'](role|from)[\"']\s*:", value) is not None
        return all(isinstance(turn, dict) and turn.keys() & {*ROLE_FIELDS} for turn in value)
    return isinstance(value, list)
