"""Masks of other tools for our examples: the tokens that transformers and TRL train on."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from trainers.data.chat_template import GenerationMask
from trainers.data.examples import Example
from trainers.data.template import Template
from trainers.data.tool_arguments import with_objects

_NO_MARKERS = "the chat template has no {% generation %} markers"
_NO_TRL = "trl is not installed; pip install 'trl>=1.16'"


@dataclass(frozen=True)
class ReferenceMask:
    """A tool whose `masks` returns its tokens and mask of each example, None if it has no mask.

    If `is_last_turn_only`, earlier assistant turns are never trained on.
    """

    tool: str
    masks: Callable[[Sequence[Example]], list[GenerationMask | None]]
    is_last_turn_only: bool = False


def find_references(template: Template, example: Example) -> tuple[list[ReferenceMask], list[str]]:
    """Return the masks that exist for this template and examples like `example`.

    The second list gives the reasons why other masks do not exist.
    """
    found: list[ReferenceMask] = []
    missing: list[str] = []
    has_markers = template.generation_mask(example) is not None
    if has_markers:
        found.append(
            ReferenceMask(
                "transformers, {% generation %}",
                lambda examples: [template.generation_mask(example) for example in examples],
            )
        )
    else:
        no_chat = f"data.template {template.name} is not a chat template"
        reason = _NO_MARKERS if template.is_chat else no_chat
        missing.append(f"transformers, {{% generation %}}: {reason}")
    if importlib.util.find_spec("trl") is None:
        return found, [*missing, f"TRL: {_NO_TRL}"]
    found.append(
        ReferenceMask("TRL, prompt and completion", _trl(template, None), is_last_turn_only=True)
    )
    if template.name == "chat" and not has_markers:
        chat_template = _trl_chat_template(template)
        if chat_template is None:
            missing.append("TRL, assistant_only_loss: TRL has no training template for this model")
        else:
            masks = _trl(template, chat_template)
            found.append(ReferenceMask("TRL, assistant_only_loss", masks))
    return found, missing


def _trl_chat_template(template: Template) -> str | None:
    """Return TRL's version of the chat template with markers; None if there is none."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        return str(get_training_chat_template(template.tokenizer))
    except ValueError:
        return None


def _trl(
    template: Template, chat_template: str | None
) -> Callable[[Sequence[Example]], list[GenerationMask | None]]:
    """Return TRL's masks: of assistant turns with `chat_template`, else of the completion.

    SFTTrainer's own preparation of data is called, without a model or a trainer.
    """

    # None is the tokenizer's chat template; alpaca and plain have no source.
    own_template = None if template.name == "chat" else template.source

    def masks(examples: Sequence[Example]) -> list[GenerationMask | None]:
        from datasets import IterableDataset
        from trl import SFTConfig, SFTTrainer

        make_row = _chat_row if template.is_chat else _text_row
        rows = [make_row(example, template, chat_template is None) for example in examples]
        with _quiet():
            config = SFTConfig(
                output_dir="unused",
                max_length=None,
                assistant_only_loss=chat_template is not None,
                report_to=[],
                use_cpu=True,
                bf16=False,
            )
            trainer = SimpleNamespace(
                _tokenizer=template.tokenizer,
                chat_template=chat_template or own_template,
                completion_only_loss=chat_template is None,
            )
            prepared = SFTTrainer._prepare_dataset(
                trainer,
                # A Dataset would store all rows in Arrow, which adds nulls to tools and tool calls.
                IterableDataset.from_generator(lambda: iter(rows)),
                *(template.tokenizer, config),
                packing=False,
                formatting_func=None,
                dataset_name="data",
            )
            return [
                GenerationMask(
                    input_ids=row["input_ids"], mask=[label != -100 for label in row["labels"]]
                )
                for row in prepared
            ]

    return masks


def _chat_row(example: Example, template: Template, is_pair: bool) -> dict[str, Any]:
    turns = with_objects([turn.to_template() for turn in example.messages])
    args = dict(template.args)
    tools = list(example.tools or args.pop("tools", ()))
    row = {"prompt": turns[:-1], "completion": turns[-1:]} if is_pair else {"messages": turns}
    return {**row, "chat_template_kwargs": args, **({"tools": tools} if tools else {})}


def _text_row(example: Example, template: Template, is_pair: bool) -> dict[str, Any]:
    return {"prompt": template.render_prompt(example), "completion": example.completion}


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress TRL's warnings: we report each difference."""
    logger = logging.getLogger("trl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
