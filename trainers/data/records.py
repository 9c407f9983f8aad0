"""Parse the records of data sets into examples. No field with a meaning is ignored silently.

Accepted forms: Alpaca; prompt and completion; chats in the OpenAI, TRL and ShareGPT formats; and
preference data, whose chosen answer becomes the completion.
"""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from trainers.data.examples import OTHER_NAMES_OF_ROLES, Example, Message, MessageRole
from trainers.data.messages import (
    CONTENT_FIELDS,
    ROLE_FIELDS,
    TEMPLATE_FIELDS,
    MessageParser,
    is_chat,
    is_thinking,
)
from trainers.data.record_fields import (
    DAMAGED,
    LABEL_FIELDS,
    WEIGHT_FIELDS,
    format_value,
    ignore_fix,
    is_meaningful,
)
from trainers.data.tool_faults import find_tool_faults
from trainers.foundation.jsonl import load_json
from trainers.foundation.suggestions import did_you_mean

ACCEPTED_FORMS = (
    "a record needs instruction and output (and may have input), prompt and completion (or"
    " response), prompt and chosen, question and answer, messages, conversations, or input_ids and"
    " labels"
)
OTHER_NAMES = (
    "set data.columns for fields with other names, such as {prompt: question_text, completion:"
    " best_answer}"
)

_TOOL_FIELDS = ("tools", "functions")
_SYSTEM_FIELDS = ("system", "system_prompt")
# Field names of prompt-answer pairs.
_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "chosen"),
    ("question", "answer"),
    ("question", "response"),
    ("question", "chosen"),
    ("query", "response"),
)
# Fields that belong to an accepted form, but that training does not use.
_UNUSED_FIELDS = {"prompt_id", "rejected", "parallel_tool_calls"}
_MEDIA = re.compile(r"images?|audios?|videos?|pixel_values|image_urls?")
# Fields of an accepted form, which are an error where the record is read by another form.
_FORM_FIELDS = frozenset(
    {
        *("messages", "conversations", "instruction", "input", "output"),
        *(name for pair in _PAIRS for name in pair),
    }
)


def _misspelt(fields: Iterable[str]) -> str | None:
    """Return `did you mean NAME?` for the first field whose name is almost that of a known one."""
    hints = (did_you_mean(name, _FORM_FIELDS - {name}, cutoff=0.8) for name in fields)
    return next((hint for hint in hints if hint is not None), None)


class RecordParser(MessageParser):
    """Converts one record to an example.

    After `example`, there are three cases: the example was returned, `problems` lists why it was
    not, or `dropped` is the reason for which the record is not used.
    """

    def example(self) -> Example | None:
        """Return the example; None if the record has problems or is dropped."""
        content = self.row.content
        if not isinstance(content, dict):
            self.add_problem(
                f"a record must be an object, got {format_value(content)}", ACCEPTED_FORMS
            )
            return None
        # Parquet and hub data sets set the missing fields of a record to null.
        fields = self.record_fields()
        turns, used = self._turns_of(fields, list(content))
        if turns is not None:
            turns = self._with_system_and_history(turns, fields)
        tools = self._tools(fields)
        sample_weight = self.weight(fields.get("weight", 1), "weight")
        if sample_weight == 0:
            self.dropped = "weight 0"
        self._check_label(fields)
        known = {*used, *_SYSTEM_FIELDS, *_TOOL_FIELDS, *LABEL_FIELDS}
        known |= {"history", "prompt_id", "parallel_tool_calls", "weight"}
        if turns is not None:
            self._check_rest(fields, known)
            self.ignored |= _UNUSED_FIELDS & fields.keys()
        if turns is not None and not self.problems and self.dropped is None:
            self._check_chat(turns)
        if turns is None or self.problems or self.dropped is not None:
            return None
        self.tool_faults = find_tool_faults(turns, tools)
        instruction = input = None
        if used[:1] == ("instruction",):
            instruction = self.text(fields["instruction"], "instruction")
            input = self.text(fields.get(used[1], ""), used[1], may_be_empty=True)
            input = input if input.strip() else ""
        return Example(
            id=self.row.id,
            messages=tuple(turns),
            instruction=instruction,
            input=input,
            tools=tools,
            extras=_extras(content, self.ignore),
            sample_weight=sample_weight,
        )

    def _turns_of(
        self, fields: dict[str, Any], names: list[str]
    ) -> tuple[list[Message] | None, tuple[str, ...]]:
        """Return the record's turns and the fields that contain them.

        The turns are None if the record has no accepted form.
        """
        for name in ("messages", "conversations"):
            if name in fields:
                return self._chat(fields, name)
        if is_chat(fields.get("chosen")) and "prompt" not in fields:
            return self.turns(fields["chosen"], "chosen"), ("chosen", "rejected")
        for pair in _PAIRS:
            if fields.keys() >= set(pair) and "instruction" not in fields:
                return self._pair(fields, *pair), (*pair, "rejected")
        # Dolly's names are context and response, LLaMA-Factory's of preference data chosen.
        answer = next((name for name in ("output", "response", "chosen") if name in fields), None)
        if "instruction" in fields and answer is not None:
            context = next((name for name in ("input", "context") if name in fields), "input")
            # Alpaca files repeat the whole text in `text`.
            others = ("text", "rejected") if answer == "chosen" else ("text",)
            return self._alpaca(fields, context, answer), ("instruction", context, answer, *others)
        for prompt, null_answer in (*_PAIRS, ("instruction", "output")):
            if prompt in fields and null_answer in names and null_answer not in fields:
                self.answer_text(None, null_answer)
                return None, ()
        found = ", ".join(n if n in fields else f"{n} (null)" for n in names) or "none"
        forms = f"{ACCEPTED_FORMS}; {OTHER_NAMES}" if fields else ACCEPTED_FORMS
        self.add_problem(
            f"the fields match no accepted form: {found}",
            " ".join(filter(None, [_misspelt(fields), forms])),
        )
        return None, ()

    def _chat(self, fields: dict[str, Any], name: str) -> tuple[list[Message], tuple[str, ...]]:
        """Return the turns of a chat, and the used fields; `chosen` may have the last turns."""
        turns = self.turns(fields[name], name)
        first = next((turn.content for turn in turns if turn.role == "user"), None)
        # Some chat data sets repeat the first user turn in `prompt`.
        used = (name, "prompt") if fields.get("prompt") == first else (name,)
        if "chosen" not in fields or (turns and turns[-1].role == "assistant"):
            return turns, used
        chosen = self.json_value(fields["chosen"], "chosen")
        if chosen is not DAMAGED:
            turns += self.turns(chosen if isinstance(chosen, list) else [chosen], "chosen")
        return turns, (*used, "chosen", "rejected")

    def _alpaca(self, fields: dict[str, Any], input_name: str, output_name: str) -> list[Message]:
        instruction = self.text(fields["instruction"], "instruction")
        input = self.text(fields.get(input_name, ""), input_name, may_be_empty=True)
        output = self.answer_text(fields[output_name], output_name)
        has_input = bool(input.strip())
        return [
            Message(role="user", content=f"{instruction}\n\n{input}" if has_input else instruction),
            Message(role="assistant", content=output),
        ]

    def _pair(self, fields: dict[str, Any], prompt: str, answer: str) -> list[Message]:
        """Return the turns of two fields, each a text or a list of messages (as in TRL)."""
        if is_chat(fields[prompt]):
            turns = self.turns(fields[prompt], prompt)
        else:
            turns = [Message(role="user", content=self.text(fields[prompt], prompt))]
        if not is_chat(fields[answer]):
            text = self.answer_text(fields[answer], answer)
            return [*turns, Message(role="assistant", content=text)]
        answers = self.turns(fields[answer], answer)
        repeated = answers[: len(turns)]
        if [(m.role, m.content) for m in repeated] == [(m.role, m.content) for m in turns]:
            if repeated != turns:
                self.add_problem(
                    f"{answer} repeats the turns of {prompt} with other weights, tool calls or"
                    " reasoning",
                    f"remove the turns of {prompt} from {answer}, or make them equal",
                )
            answers = answers[len(turns) :]  # Preference data may repeat the prompt.
        elif turns[-1:] and turns[-1].role == "user" and answers and answers[0].role != "assistant":
            self.add_problem(
                f"{prompt} ends with a user turn, so {answer} must begin with an assistant turn or"
                f" repeat {prompt} exactly, got a {answers[0].role} turn",
                "remove one of the prompts from the record",
            )
        # Train on all assistant turns of the completion.
        return [
            *turns,
            *(
                replace(turn, train=turn.train is not False) if turn.role == "assistant" else turn
                for turn in answers
            ),
        ]

    def _with_system_and_history(
        self, turns: list[Message], fields: dict[str, Any]
    ) -> list[Message]:
        history = self.json_value(fields.get("history"), "history") or []
        if history is DAMAGED:
            history = []
        if not isinstance(history, list) or any(
            not isinstance(pair, list) or len(pair) != 2 for pair in history
        ):
            self.add_problem(
                f"history must be a list of [user, assistant], got {format_value(history)}"
            )
            history = []
        earlier = [
            Message(role=role, content=self.text(text, f"history[{index}]"))
            for index, pair in enumerate(history)
            for role, text in zip(_PAIR_ROLES, pair, strict=True)
        ]
        systems = [fields[name] for name in _SYSTEM_FIELDS if fields.get(name)]
        if any(not isinstance(system, str) for system in systems):
            self.add_problem(f"system must be a string, got {format_value(systems[0])}")
            systems = []
        self.check_characters("".join(systems), "system")
        systems += [turn.content for turn in turns[:1] if turn.role == "system"]
        if len(set(systems)) > 1:
            self.add_problem(
                "the record has two different system texts", "list one of the fields in data.ignore"
            )
        rest = turns[1:] if turns and turns[0].role == "system" else turns
        first = turns[:1] if rest is not turns else []
        if not first and systems and systems[0].strip():
            first = [Message(role="system", content=systems[0])]
        return [*first, *earlier, *rest]

    def _tools(self, fields: dict[str, Any]) -> tuple[Any, ...] | None:
        names = [name for name in _TOOL_FIELDS if fields.get(name)]
        if not names:
            return None
        if len(names) > 1:
            self.add_problem("the record has tools and functions", "list one in data.ignore")
        tools = self.json_value(fields[names[0]], names[0])
        if tools is DAMAGED:
            return None
        if not isinstance(tools, list) or any(not isinstance(tool, dict) for tool in tools):
            self.add_problem(f"{names[0]} must be a list of objects, got {format_value(tools)}")
            return None
        self.check_characters(tools, names[0])
        tools = self.without_nulls(tools)
        return tuple(map(_as_tool, tools) if names[0] == "functions" else tools)

    def _check_label(self, fields: dict[str, Any]) -> None:
        """Reject or drop an answer that the data labels as bad."""
        for name in LABEL_FIELDS:
            value = fields.get(name)
            if value is False:
                if "negative" in self.drop:
                    self.dropped = "negative"
                    return
                self.add_problem(
                    f"{name} is false: it marks a bad answer",
                    "add negative to data.drop, or remove the record",
                )
            elif value is not None and value is not True:
                self.add_problem(
                    f"{name} must be true or false, got {format_value(value)}", ignore_fix(name)
                )

    def _check_rest(self, fields: dict[str, Any], used: Collection[str]) -> None:
        """Reject unused fields that appear to have a meaning for training."""
        for name in sorted(fields.keys() - set(used)):
            value = fields[name]
            if value in ("", [], {}):
                continue
            if _MEDIA.fullmatch(name.lower()):
                self.add_problem(f"{name}: only text can be trained on", ignore_fix(name))
            elif name in WEIGHT_FIELDS and value in (1, True):
                continue
            elif name in _FORM_FIELDS or is_meaningful(name):
                fix = ignore_fix(name, {*used, *_FORM_FIELDS})
                self.add_problem(f"the field {name} is not supported", fix)
            else:
                self.ignored.add(name)

    def _check_chat(self, turns: list[Message]) -> None:
        if not turns or turns[-1].role != "assistant":
            last = f"a final {turns[-1].role} turn" if turns else "an empty list"
            self.add_problem(
                f"a chat must end with an assistant turn, got {last}",
                "add the answer, or remove the turns after the last answer",
            )
        elif all(turn.role != "user" for turn in turns):
            self.add_problem("the prompt must contain a user turn, got none")
        elif turns[-1].train is False and not any(map(_has_weight, turns)):
            self.dropped = "weight 0"
        elif turns[-1].train is False:
            self.add_problem(
                "the last assistant turn is not trained on (weight 0 or train false)",
                "end the chat with a turn that is, or remove the record",
            )


def _has_weight(turn: Message) -> bool:
    """Return whether the data selects a turn, or the settings decide on an answer."""
    if turn.train is False:
        return False
    is_weighted = turn.weight is not None or any(part.weight > 0 for part in turn.part_weights)
    return turn.role == "assistant" or is_weighted


def _as_tool(function: Any) -> Any:
    """Return a definition of OpenAI's older `functions` in the form of `tools`."""
    is_bare = isinstance(function, dict) and "name" in function
    return {"type": "function", "function": function} if is_bare else function


_PAIR_ROLES: tuple[MessageRole, MessageRole] = ("user", "assistant")


def _extras(record: dict[str, Any], ignore: Collection[str]) -> str | None:
    """Return the weights, tools and reasoning of a record by path, as JSON, or None."""
    found = _extra_fields(record, ignore)
    if isinstance(found.get("functions"), list):
        found["functions"] = [_as_tool(one) for one in found["functions"]]
    for name, value in record.items():
        messages = _messages_in(value)
        if isinstance(messages, list):
            for index, message in enumerate(messages):
                if isinstance(message, dict):
                    extra = _extra_fields(message, ignore) | _thinking_of(message)
                    extra |= _role_name_of(message)
                    found |= {f"{name}[{index}].{key}": one for key, one in extra.items()}
    return json.dumps(found, sort_keys=True, default=str) if found else None


def _messages_in(value: Any) -> Any:
    """Return the value, or the messages of a string of JSON."""
    if not isinstance(value, str) or not is_chat(value):
        return value
    try:
        return load_json(value)
    except ValueError:  # in a field that is not used
        return value


_EXTRA_FIELDS = frozenset(
    {*WEIGHT_FIELDS, *TEMPLATE_FIELDS, *_TOOL_FIELDS, "weights", "loss_weight", "function_call"}
)


def _role_name_of(message: dict[str, Any]) -> dict[str, str]:
    names = [message[field] for field in ROLE_FIELDS if isinstance(message.get(field), str)]
    return next(({"role": name} for name in names if name in OTHER_NAMES_OF_ROLES), {})


def _thinking_of(message: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a message's content that are thinking, by its name."""
    found = {
        name: [part for part in message[name] if is_thinking(part)]
        for name in CONTENT_FIELDS
        if isinstance(message.get(name), list)
    }
    return {name: parts for name, parts in found.items() if parts}


def _extra_fields(fields: dict[str, Any], ignore: Collection[str]) -> dict[str, Any]:
    return {
        key: fields[key]
        for key in _EXTRA_FIELDS & fields.keys()
        if fields[key] is not None and key not in ignore
    }
