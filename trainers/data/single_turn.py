"""The templates alpaca and plain: one question, one answer."""

from trainers.data.examples import Example
from trainers.data.role_spans import Rendered, RoleSpan, completion_of, user_text
from trainers.data.roles import Role
from trainers.data.template_spans import ALPACA_WITH_INPUT, ALPACA_WITHOUT_INPUT
from trainers.foundation.errors import InputError, Problem


def check_single_turn(example: Example, name: str, *, has_chat_template: bool) -> None:
    """Check that the template `name`, alpaca or plain, can render the whole example.

    Raises:
        InputError: it cannot; the fix names templates that can.
    """
    check_answer_is_text(example, name, has_chat_template)
    others = _chat_templates(has_chat_template)
    if example.tools:
        raise InputError(
            Problem(
                message=f"data.template {name} does not render the record's tools",
                where=example.id,
                fix=f"set data.template to {others}, or list the field in data.ignore",
            )
        )
    # An empty system turn is nothing to lose.
    turns = [turn for turn in example.messages if turn.role != "system" or turn.content.strip()]
    if len(turns) > 2:
        has_one_question = [turn.role for turn in example.messages[:-1]] == ["system", "user"]
        merge = "put the system text into the user turn, or " if has_one_question else ""
        raise InputError(
            Problem(
                message=(
                    f"data.template {name} renders one user turn, but the chat has"
                    f" {len(turns)} messages: the others would be lost"
                ),
                where=example.id,
                fix=f"{merge}set data.template to {others}",
            )
        )


def check_answer_is_text(example: Example, name: str, has_chat_template: bool) -> None:
    """Check that the answer is only text; other parts need a chat template.

    Names of turns are counted where the template does not show them.

    Raises:
        InputError: the answer has other parts.
    """
    fields = sorted(example.messages[-1].fields.keys() - {"name"})
    if fields:
        raise InputError(
            Problem(
                message=f"data.template {name} does not render the answer's {', '.join(fields)}",
                where=example.id,
                fix=f"set data.template to {_chat_templates(has_chat_template)}, or list"
                f" {' and '.join(fields)} in data.ignore",
            )
        )


def _chat_templates(has_chat_template: bool) -> str:
    """Return the templates to advise for a chat, by whether the tokenizer has one."""
    file = "a chat template in a Jinja file"
    return f"chat or to {file}" if has_chat_template else file


def is_single_turn(example: Example) -> bool:
    """Return whether alpaca and plain can render all messages of the example."""
    return [turn.role for turn in example.messages] == ["user", "assistant"]


def render_plain(example: Example) -> Rendered:
    prompt = [user_text(example, example.prompt), RoleSpan("\n\n", Role.TEMPLATE)]
    return Rendered(prompt, completion_of(example))


def render_alpaca(example: Example) -> Rendered:
    instruction = example.instruction or example.prompt
    fields = [("{instruction}", instruction)]
    template = ALPACA_WITHOUT_INPUT
    if example.input:
        template = ALPACA_WITH_INPUT
        fields.append(("{input}", example.input))
    spans: list[RoleSpan] = []
    for placeholder, text in fields:
        before, template = template.split(placeholder)
        spans += [RoleSpan(before, Role.TEMPLATE), user_text(example, text)]
    return Rendered([*spans, RoleSpan(template, Role.TEMPLATE)], completion_of(example))
