"""The Jinja text behind `data.template`: where it is, which variables it reads, its arguments."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
from transformers import PreTrainedTokenizerBase

from trainers.data.template_files import SINGLE_TURN, TEMPLATE_NAMES, template_file
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.suggestions import did_you_mean

DATE = "date"
"""The template argument with the date, such as 2026-11-29, that `strftime_now` formats."""
# Llama's templates read the clock only if they do not get this variable.
_DATE_TEXT = "date_string"
CLOCK = "strftime_now"
"""The function with which templates read the clock."""
# What the templates get from the data, from us and from transformers. Tools may be an argument:
# they are those of records without any.
_OURS = {
    *("messages", "prompt", "instruction", "input", "add_generation_prompt", CLOCK),
    *("raise_exception", "namespace", "range", "dict"),
    *inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters,
} - {"tools", "documents"}


class _Generation(jinja2.ext.Extension):
    """Parses the {% generation %} markers of chat templates."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True, kw_only=True)
class TemplateSource:
    """A template with this `data.template`; `variables` are the names that it reads.

    `text` is None for the tokenizer's chat template, and for templates without Jinja.
    """

    name: str
    text: str | None
    variables: frozenset[str]

    @property
    def is_chat(self) -> bool:
        """Return whether it renders whole chats, answers included, as chat templates do."""
        return self.name == "chat" or "add_generation_prompt" in self.variables

    def reads_clock(self, args: Mapping[str, Any]) -> bool:
        """Return whether its output depends on the day on which it is rendered."""
        return CLOCK in self.variables and _DATE_TEXT not in self.variables & args.keys()

    def check_args(self, args: Mapping[str, Any]) -> None:
        """Check `data.template_args`.

        Raises:
            InputError: the template does not read an argument, or reads the clock without a date.
        """
        problems = [
            self._unknown_arg(name) for name in args if name not in self._accepted_args(args)
        ]
        if self.reads_clock(args) and DATE not in args:
            problems.append(
                Problem(
                    message=f"the template {self.name} shows the date of today, so that each day"
                    " has other prompts",
                    fix="set data.template_args.date, such as 2026-11-29",
                )
            )
        if problems:
            raise InputError(problems)

    def _accepted_args(self, args: Mapping[str, Any]) -> list[str]:
        dates = [DATE] if self.reads_clock(args) else []
        return sorted({*self.variables - _OURS, *dates})

    def _unknown_arg(self, name: str) -> Problem:
        accepted = self._accepted_args({})
        fix = did_you_mean(name, accepted, cutoff=0.5) or f"it reads {', '.join(accepted)}"
        return Problem(
            message=f"data.template_args.{name}: the template {self.name} does not read {name}",
            fix=fix if accepted else "remove it: the template takes no arguments",
        )


def load_template_source(name: str, tokenizer: PreTrainedTokenizerBase) -> TemplateSource:
    """Return the template that `data.template` names.

    Raises:
        InputError: it does not exist, or has a syntax error.
    """
    if name in SINGLE_TURN:
        return TemplateSource(name=name, text=None, variables=frozenset())
    text = None if name == "chat" else read_template(name)
    texts = [text] if text is not None else _own_templates(tokenizer)
    variables = [_variables(name, one) for one in texts]
    return TemplateSource(name=name, text=text, variables=frozenset().union(*variables))


def with_date(data: DataConfig, tokenizer: PreTrainedTokenizerBase, today: date) -> DataConfig:
    """Return the settings with this date, if the template reads the clock and they have none.

    Raises:
        InputError: see `load_template_source`.
    """
    if DATE in data.template_args:
        return data
    if not load_template_source(data.template, tokenizer).reads_clock(data.template_args):
        return data
    return data.model_copy(update={"template_args": {**data.template_args, DATE: str(today)}})


def utc_today() -> date:
    """Return the current date in UTC."""
    return datetime.now(UTC).date()


def clock(args: Mapping[str, Any]) -> Callable[[str], str]:
    """Return the `strftime_now` of templates: it formats the date in `args` instead of today's."""

    def strftime_now(format: str) -> str:
        if DATE not in args:
            raise ValueError(f"it shows the date of today; set data.template_args.{DATE}")
        return date.fromisoformat(args[DATE]).strftime(format)

    return strftime_now


def read_template(name: str) -> str:
    """Return the text of the template file that `data.template` names.

    Raises:
        InputError: the file does not exist or is not UTF-8.
    """
    path = template_file(name)
    try:
        if path is not None:
            return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    names = ", ".join(TEMPLATE_NAMES)
    raise InputError(
        Problem(
            message=f"data.template must be {names} or a Jinja file, got {name}",
            fix="use the path of an existing UTF-8 file",
        )
    )


def _own_templates(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the chat templates of a tokenizer; some have another one for chats with tools."""
    own = tokenizer.chat_template
    if not own:
        raise InputError(
            Problem(
                message="data.template is chat, but the tokenizer has no chat template",
                fix="set data.template to a chat template in a Jinja file, or, for records with one"
                " question and one answer, to alpaca or plain",
            )
        )
    return list(own.values()) if isinstance(own, dict) else [own]


def _variables(name: str, text: str) -> frozenset[str]:
    environment = jinja2.Environment(extensions=[_Generation, jinja2.ext.loopcontrols])
    try:
        return frozenset(jinja2.meta.find_undeclared_variables(environment.parse(text)))
    except jinja2.TemplateSyntaxError as error:
        raise syntax_error(name, error) from None


def syntax_error(name: str, error: jinja2.TemplateSyntaxError) -> InputError:
    """Return the error for a template that does not compile, with the line in its file."""
    path = template_file(name) or f"the template {name}"
    return InputError(
        Problem(message=f"not a valid template: {error.message}", where=f"{path}:{error.lineno}")
    )
