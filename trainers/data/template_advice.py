"""Advice for a chat template whose prompt changes once the answer follows it."""

from transformers import PreTrainedTokenizerBase

from trainers.data.chat_template import ChatTemplate, Tools
from trainers.data.template_files import SHIPPED, template_file
from trainers.data.template_source import read_template
from trainers.data.template_spans import text_or_none
from trainers.data.tool_arguments import Messages


def replacement_advice(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, messages: Messages, tools: Tools
) -> str:
    """Return what to set instead of `template`; settings are named only if they work for the chat.

    Args:
        messages: the whole chat, which ends with the answer.
    """
    for is_thinking in (True, False):
        if _answer_follows(template.with_args({"enable_thinking": is_thinking}), messages, tools):
            return f"set data.template_args.enable_thinking to {str(is_thinking).lower()}"
    prompt = _prompt(template, messages, tools)
    for name in SHIPPED:
        shipped = ChatTemplate(tokenizer, read_template(name))
        if _answer_follows(shipped, messages, tools) and (
            _prompt(shipped, messages, tools) == prompt
        ):
            return f"set data.template to {name}, which has the same prompts"
    own_file = (
        "set data.template to a chat template in which the answer follows its prompt, such as"
        f" {template_file(SHIPPED[0])} for DeepSeek R1"
    )
    if messages[0]["role"] in ("system", "developer"):
        return f"put the system text into the first user turn, or {own_file}"
    return own_file


def _answer_follows(template: ChatTemplate, messages: Messages, tools: Tools) -> bool:
    prompt = _prompt(template, messages, tools)
    whole = text_or_none(lambda: template.render(messages, tools, generation_prompt=False))
    return prompt is not None and whole is not None and whole.startswith(prompt)


def _prompt(template: ChatTemplate, messages: Messages, tools: Tools) -> str | None:
    return text_or_none(lambda: template.render(messages[:-1], tools, generation_prompt=True))
