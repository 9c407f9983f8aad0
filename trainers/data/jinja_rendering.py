"""Render examples with a Jinja file, and find the texts of the data in what it renders."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainers.data.examples import Example
from trainers.data.role_spans import (
    Rendered,
    RoleSpan,
    TurnRoles,
    completion_of,
    user_text,
    weight_of,
)
from trainers.data.roles import Role
from trainers.data.single_turn import check_answer_is_text
from trainers.data.template_errors import changed_text_error, template_error
from trainers.data.template_source import CLOCK, clock
from trainers.data.template_spans import (
    FieldFinder,
    compile_template,
    depends_on_fields,
    describe_error,
)
from trainers.data.tool_arguments import ArgumentForm, Messages


class JinjaRenderer:
    """Renders prompts with a Jinja file; the completion is the answer's text.

    The file gets `messages` without the answer, `tools`, and the last user turn as `prompt`,
    `instruction` and `input`.

    Raises:
        InputError: the file does not compile.
    """

    def __init__(
        self,
        name: str,
        source: str,
        args: Mapping[str, Any],
        turns: TurnRoles,
        *,
        has_chat_template: bool,
    ) -> None:
        """If `has_chat_template`, errors name the model's chat template as an alternative."""
        self._name = name
        self._args = args
        self._turns = turns
        self._has_chat_template = has_chat_template
        self._template = compile_template(Path(name), source)
        self._template.globals[CLOCK] = clock(args)
        self._fields = FieldFinder()
        self._argument_form = ArgumentForm()
        self._is_known_to_depend = False

    def render(self, example: Example) -> Rendered:
        """Return the rendered example.

        Raises:
            InputError: the file cannot be rendered, does not show the example, or changes texts to
                which the data gives weights.
        """
        check_answer_is_text(example, self._name, self._has_chat_template)
        turns = example.messages[:-1]
        texts = (example.prompt, example.instruction or example.prompt, example.input or "")
        fields = [
            *(
                RoleSpan(turn.content, self._turns.role_of(turn), index, weight_of(turn))
                for index, turn in enumerate(turns)
            ),
            *(user_text(example, text) for text in texts),
        ]

        def render(texts: Sequence[str]) -> str:
            return self._render_texts(example, texts)

        try:
            pieces, whole = self._fields.find(
                tuple(turn.role for turn in turns), [field.text for field in fields], render
            )
        except Exception as error:  # A template is a program and can raise any error.
            fault = describe_error(error)
            raise template_error(example, f"{self._name} cannot be rendered: {fault}") from None
        if not whole.strip():
            raise template_error(example, f"{self._name} renders an empty prompt")
        if not self._is_known_to_depend and not depends_on_fields(whole, len(fields), render):
            fault = "renders the same prompt for every prompt, instruction, input and messages"
            raise template_error(example, f"{self._name} {fault}")
        self._is_known_to_depend = True
        spans = [
            RoleSpan(text, Role.TEMPLATE) if index is None else replace(fields[index], text=text)
            for text, index in pieces
        ]
        if not spans and any(turn.train is False or turn.weight is not None for turn in turns):
            raise changed_text_error(example)
        # If the template changes the texts, for example shortens them, all text has the user role.
        return Rendered(spans or [RoleSpan(whole, Role.USER)], completion_of(example))

    def _render_texts(self, example: Example, texts: Sequence[str]) -> str:
        """Return the prompt with other texts: of each message, then prompt, instruction, input."""
        *contents, prompt, instruction, input = texts
        messages = [
            {**turn.to_template(), "role": turn.role, "content": content}
            for turn, content in zip(example.messages[:-1], contents, strict=True)
        ]

        def render(messages: Messages) -> str:
            text: str = self._template.render(
                prompt=prompt,
                instruction=instruction,
                input=input,
                messages=messages,
                **{"tools": example.tools, **self._args},
            )
            return text

        return render(self._argument_form.convert(messages, render))
