"""Read examples from a file, a hub data set or the demo."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.data.examples import Example, Message, MessageRole, pair
from trainers.demo.data import python_docs
from trainers.foundation.errors import InputError, Problem

ACCEPTED_FORMS = (
    "a record needs instruction and output (and may have input), prompt and completion (or"
    " response), messages, or conversations"
)
# The names of ShareGPT beside those of the OpenAI format, which nearly all chat data has.
_ROLE_OF: dict[str, MessageRole] = {
    **{"system": "system", "user": "user", "assistant": "assistant"},
    **{"human": "user", "gpt": "assistant"},
}
_MAX_LISTED = 20  # problems
_MAX_SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class _Row:
    """One record as it was read; `where` is for errors, `id` becomes the example's."""

    id: str
    where: str
    content: Any


def read_examples(path: str, *, split: str = "train") -> list[Example]:
    """The examples in a JSONL, JSON or Parquet file, a split of a hub data set, or a demo set.

    Each record has one of the `ACCEPTED_FORMS`: Alpaca, prompt and completion (text, or messages
    as in TRL), or chat (`messages`, or `conversations` as in ShareGPT).

    Raises:
        InputError: with all problems of the data, each with its line or index.
    """
    if path.startswith("demo:"):
        return _read_demo(path)
    rows = _read_file(path) if _is_file(path) else _read_hub(path, split)
    examples: list[Example] = []
    problems: list[Problem] = []
    for row in rows:
        if isinstance(row, Problem):
            problems.append(row)
            continue
        record = _Record(row)
        example = record.example()
        if example is None:
            problems += record.problems
        else:
            examples.append(example)
    if problems:
        raise InputError(_shortened(problems, path))
    if not examples:
        raise InputError(Problem(message="holds no records", where=path, fix=ACCEPTED_FORMS))
    return examples


def _shortened(problems: list[Problem], path: str) -> list[Problem]:
    num_more = len(problems) - _MAX_LISTED
    if num_more <= 0:
        return problems
    more = f"and {num_more} more problem{'s' if num_more > 1 else ''}"
    return [*problems[:_MAX_LISTED], Problem(message=more, where=path)]


def _read_demo(path: str) -> list[Example]:
    if path not in _DEMOS:
        raise InputError(
            Problem(
                message=f"data.path must name a demo set that exists, got {path}",
                fix=f"use {' or '.join(_DEMOS)}",
            )
        )
    return _DEMOS[path]()


def _python_docs() -> list[Example]:
    """A documentation string as prompt, the name (`str.center`) of what it documents as completion.

    The long set is the inverse, under the same ids.
    """
    return [pair(f"python-docs:{name}", prompt=doc, completion=name) for name, doc in python_docs()]


_DEMOS: dict[str, Callable[[], list[Example]]] = {
    "demo:python-docs-short": _python_docs,
    "demo:python-docs-long": lambda: [example.inverted() for example in _python_docs()],
}


def _is_file(path: str) -> bool:
    looks_like_one = path.startswith((".", "/", "~")) or Path(path).suffix.lower() in _READERS
    return looks_like_one or Path(path).exists()


def _read_file(path: str) -> Iterator[_Row | Problem]:
    file = Path(path).expanduser()
    if not file.exists():
        raise InputError(Problem(message="no such file", where=path, fix="correct data.path"))
    reader = _READERS.get(file.suffix.lower())
    if reader is None or not file.is_file():
        raise InputError(
            Problem(
                message="data.path must be a file that ends in .jsonl, .json or .parquet",
                where=path,
                fix="give such a file, or the name of a hub data set",
            )
        )
    try:
        yield from reader(file)
    except OSError as error:
        raise InputError(
            Problem(message=f"cannot be read: {error.strerror or error}", where=path)
        ) from None


def _text_of(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            Problem(
                message=f"must be UTF-8, got the byte 0x{content[error.start]:02x}",
                where=f"{file}:{line}",
                fix="save the file as UTF-8",
            )
        ) from None


def _read_jsonl(file: Path) -> Iterator[_Row | Problem]:
    # Not splitlines(), which also splits at characters that JSON allows inside a string.
    for number, line in enumerate(_text_of(file).split("\n"), start=1):
        where = f"{file}:{number}"
        if not line.strip():
            continue
        try:
            yield _Row(f"{file.name}:{number}", where, json.loads(line))
        except (ValueError, RecursionError) as error:
            fix = "write one object per line, or let the name of a file with one list end in .json"
            yield Problem(message=_json_fault(error), where=where, fix=fix)


def _read_json(file: Path) -> Iterator[_Row | Problem]:
    text = _text_of(file)
    try:
        content = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        fix = "if it holds one record per line, let its name end in .jsonl"
        yield Problem(message=_json_fault(error), where=f"{file}{line}", fix=fix)
        return
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else None
    if not isinstance(content, list):
        message = "must hold a list of records, or an object with one list"
        yield Problem(message=message, where=str(file), fix=ACCEPTED_FORMS)
        return
    yield from _indexed(file.name, str(file), content)


def _json_fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} at column {error.colno}"
    return f"not valid JSON: {error}"


def _read_parquet(file: Path) -> Iterator[_Row | Problem]:
    import pyarrow
    import pyarrow.parquet

    try:
        records = pyarrow.parquet.read_table(file).to_pylist()
    except pyarrow.ArrowInvalid as error:
        yield Problem(message=f"not a Parquet file: {_first_line(error)}", where=str(file))
        return
    yield from _indexed(file.name, str(file), records)


def _indexed(name: str, path: str, records: Iterable[Any]) -> Iterator[_Row]:
    for index, record in enumerate(records):
        yield _Row(f"{name}[{index}]", f"{path}[{index}]", record)


_READERS: dict[str, Callable[[Path], Iterator[_Row | Problem]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _read_hub(name: str, split: str) -> Iterator[_Row]:
    import datasets

    try:
        rows = datasets.load_dataset(name, split=split)
    except OSError as error:
        reason = _first_line(error)
        raise InputError(
            Problem(
                message=f"neither a file here nor a hub data set that can be reached: {reason}",
                where=name,
                fix="correct data.path, or go online",
            )
        ) from None
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            Problem(
                message=f"the hub data set cannot be loaded: {_first_line(error)}",
                where=name,
                fix="correct data.path or data.split",
            )
        ) from None
    yield from _indexed(name, name, rows)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass
class _Record:
    """One record on its way to becoming an example, and what is wrong with it."""

    row: _Row
    problems: list[Problem] = field(default_factory=list)

    def example(self) -> Example | None:
        """The example, or None when there are problems."""
        content = self.row.content
        if not isinstance(content, dict):
            self._reject(f"a record must be an object, got {_shown(content)}", ACCEPTED_FORMS)
            return None
        # Parquet and hub data sets fill the fields that a record lacks with null.
        fields = {name: value for name, value in content.items() if value is not None}
        instruction: str | None = None
        input: str | None = None
        chat = next((name for name in ("messages", "conversations") if name in fields), None)
        answer = next((name for name in ("completion", "response") if name in fields), None)
        if chat:
            turns = self._chat(self._turns(fields[chat], chat), chat)
        elif "prompt" in fields and answer:
            turns = self._prompt_and_answer(fields["prompt"], fields[answer], answer)
        elif "instruction" in fields and "output" in fields:
            instruction, input, turns = self._alpaca(fields)
        else:
            names = (name if name in fields else f"{name} (null)" for name in content)
            found = ", ".join(names) or "none"
            self._reject(f"the fields are those of no known form: {found}", ACCEPTED_FORMS)
            return None
        if self.problems:
            return None
        return Example(id=self.row.id, messages=tuple(turns), instruction=instruction, input=input)

    def _alpaca(self, fields: dict[str, Any]) -> tuple[str, str, list[Message]]:
        instruction = self._text(fields["instruction"], "instruction")
        input = self._text(fields.get("input", ""), "input", may_be_empty=True)
        output = self._text(fields["output"], "output")
        has_input = bool(input.strip())
        turns = [
            Message(role="user", content=f"{instruction}\n\n{input}" if has_input else instruction),
            Message(role="assistant", content=output),
        ]
        return instruction, input if has_input else "", turns

    def _prompt_and_answer(self, prompt: Any, answer: Any, answer_name: str) -> list[Message]:
        """Each side a text, or a list of messages as in TRL's conversational form."""
        turns: list[Message] = []
        sides: list[tuple[str, Any, MessageRole]] = [
            ("prompt", prompt, "user"),
            (answer_name, answer, "assistant"),
        ]
        for name, value, role in sides:
            if isinstance(value, list):
                turns += self._turns(value, name)
            else:
                turns.append(Message(role=role, content=self._text(value, name)))
        if isinstance(answer, list) and len(answer) != 1:
            self._reject(f"{answer_name} must be one message, got {len(answer)}")
        return self._chat(turns, answer_name)

    def _chat(self, turns: list[Message], name: str) -> list[Message]:
        # Asked of whole chats only: a broken turn would be reported twice.
        if not self.problems:
            if not turns or turns[-1].role != "assistant":
                last = f"a final {turns[-1].role} turn" if turns else "an empty list"
                self._reject(f"{name} must end with an assistant turn, got {last}")
            elif all(turn.role != "user" for turn in turns):
                self._reject("the prompt must hold a user turn, got none")
        return turns

    def _turns(self, value: Any, name: str) -> list[Message]:
        if not isinstance(value, list):
            self._reject(f"{name} must be a list of messages, got {_shown(value)}")
            return []
        return [self._turn(turn, f"{name}[{index}]") for index, turn in enumerate(value)]

    def _turn(self, turn: Any, name: str) -> Message:
        if not isinstance(turn, dict):
            self._reject(f"{name} must be an object with role and content, got {_shown(turn)}")
            return Message(role="user", content="")
        role_field = "from" if turn.get("from") is not None else "role"
        content_field = "value" if turn.get("value") is not None else "content"
        role = turn.get(role_field)
        if not isinstance(role, str) or role not in _ROLE_OF:
            known = ", ".join(_ROLE_OF)
            self._reject(f"{name}.{role_field} must be one of {known}, got {_shown(role)}")
            role = "user"
        content = self._text(turn.get(content_field), f"{name}.{content_field}")
        return Message(role=_ROLE_OF[role], content=content)

    def _text(self, value: Any, name: str, *, may_be_empty: bool = False) -> str:
        if not isinstance(value, str):
            self._reject(f"{name} must be a string, got {_shown(value)}")
            return ""
        if not value.strip() and not may_be_empty:
            message = f"{name} must not be empty, got {_shown(value)}"
            self._reject(message, "write it or drop the record")
        if not value.isascii() and re.search("[\ud800-\udfff]", value):
            # JSON can escape half of a surrogate pair; no tokenizer takes it.
            self._reject(f"{name} holds half a surrogate pair, which no text may", "mend the text")
        return value

    def _reject(self, message: str, fix: str | None = None) -> None:
        self.problems.append(Problem(message=message, where=self.row.where, fix=fix))


def _shown(value: Any) -> str:
    """`value` as the data writes it, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode("utf-8", "backslashreplace").decode()  # Else it could not be printed.
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
