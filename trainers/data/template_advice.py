"""Advice for chat templates that change the prompt once the answer follows, or show no tools."""

from transformers import PreTrainedTokenizerBase

from trainers.data.chat_answers import USE_JINJA
from trainers.data.chat_template import ChatTemplate, Tools
from trainers.data.template_files import (
    CHATML_TOKENS,
    CHATML_TOOLS,
    DEEPSEEK_R1,
    TEMPLATE_NAMES,
    template_file,
)
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
    shipped = ChatTemplate(tokenizer, read_template(DEEPSEEK_R1))
    if _answer_follows(shipped, messages, tools) and _prompt(shipped, messages, tools) == prompt:
        return f"set data.template to {DEEPSEEK_R1}, which has the same prompts"
    own_file = (
        "set data.template to a chat template in which the answer follows its prompt, such as"
        f" {template_file(DEEPSEEK_R1)} for DeepSeek R1"
    )
    if messages[0]["role"] in ("system", "developer"):
        return f"put the system text into the first user turn, or {own_file}"
    return own_file


def tools_advice(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what to do if the template `name` does not show tools or tool calls."""
    if name not in TEMPLATE_NAMES:
        return (
            f"make {name} render `tools`, `message.tool_calls` with name and arguments, and"
            " messages with the role tool; docs/data.md lists templates that do"
        )
    if name == "chat" and has_chatml_tokens(tokenizer):
        return f"set data.template to {CHATML_TOOLS}, which shows tools in ChatML"
    return f"{USE_JINJA}, tools included (Templates in docs/data.md)"


def has_chatml_tokens(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer has the tokens that begin and end the turns of ChatML."""
    return all(token in tokenizer.get_added_vocab() for token in CHATML_TOKENS)


def _answer_follows(template: ChatTemplate, messages: Messages, tools: Tools) -> bool:
    prompt = _prompt(template, messages, tools)
    whole = text_or_none(lambda: template.render(messages, tools, generation_prompt=False))
    return prompt is not None and whole is not None and whole.startswith(prompt)


def _prompt(template: ChatTemplate, messages: Messages, tools: Tools) -> str | None:
    return text_or_none(lambda: template.render(messages[:-1], tools, generation_prompt=True))
