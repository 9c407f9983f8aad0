"""Published chat templates, and the chats on which each can be trained.

The templates are written for these tests after the published ones, in which they render these chats
alike. The full tests run the published ones of TRL's package as well.
"""

# ruff: noqa: RUF001 (the tokens of DeepSeek R1 contain full-width bars)

from dataclasses import dataclass
from typing import Any

from tests.trainers.data.chat_templates import DEEPSEEK_R1
from trainers.data.examples import Example, Message
from trainers.data.template_source import read_template

_LLAMA_TURNS = (
    "{% for m in messages %}"
    "{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}"
    "{% set call = m.tool_calls[0].function %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
    '{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}<|eot_id|>'
    "{% elif m.role == 'tool' %}"
    "<|start_header_id|>ipython<|end_header_id|>\n\n{{ m.content | tojson }}<|eot_id|>"
    "{% else %}"
    "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA_3_1 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}"
    "{% endif %}{% set system = messages[0].content | trim if messages[0].role == 'system' else ''"
    " %}{% set messages = messages[1:] if messages[0].role == 'system' else messages %}"
    "<|start_header_id|>system<|end_header_id|>\n\n{% if tools %}Environment: ipython\n{% endif %}"
    "Cutting Knowledge Date: December 2023\nToday Date: {{ date_string }}\n\n{{ system }}<|eot_id|>"
    "{% if tools %}<|start_header_id|>user<|end_header_id|>\n\nFunctions:\n"
    "{% for tool in tools %}{{ tool | tojson(indent=4) }}\n\n{% endfor %}"
    "{{ messages[0].content | trim }}<|eot_id|>{% set messages = messages[1:] %}{% endif %}"
) + _LLAMA_TURNS
LLAMA_3_2 = LLAMA_3_1.replace("'26 Jul 2024'", "strftime_now('%d %b %Y')")

_TOOLS = "{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}"
_CHATML_CALLS = (
    "{% for call in m.tool_calls or [] %}{% if not loop.first or m.content %}\n{% endif %}"
    "<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n"
)
QWEN_2_5 = (
    "{% set has_system = messages[0].role == 'system' %}<|im_start|>system\n"
    "{{ messages[0].content if has_system else 'You are Qwen.' }}"
    "{% if tools %}\n\n# Tools" + _TOOLS + "{% endif %}<|im_end|>\n"
    "{% for m in (messages[1:] if has_system else messages) %}"
    "{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response>"
    "<|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    + _CHATML_CALLS
    + "{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_3 = (
    "{% set has_system = messages[0].role == 'system' %}{% if has_system or tools %}"
    "<|im_start|>system\n{{ messages[0].content if has_system else '' }}"
    "{% if tools %}\n\n# Tools" + _TOOLS + "{% endif %}<|im_end|>\n{% endif %}"
    "{% set last = namespace(user=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}{% set thinking = m.reasoning_content or '' %}"
    "<|im_start|>assistant\n{% if loop.index0 > last.user and (loop.last or thinking) %}"
    "<think>\n{{ thinking }}\n</think>\n\n{% endif %}{{ m.content }}" + _CHATML_CALLS + ""
    "{% elif m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n"
    "{% elif m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
_ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
)
GEMMA_2 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    + _ALTERNATE
    + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GEMMA_3 = (
    "{{ bos_token }}{% set has_system = messages[0].role == 'system' %}"
    "{% set prefix = messages[0].content + '\n\n' if has_system else '' %}"
    "{% for m in (messages[1:] if has_system else messages) %}"
    + _ALTERNATE
    + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ prefix if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GEMMA_4 = (
    "{{ bos_token }}{% set has_system = messages[0].role == 'system' %}"
    "{% if has_system or tools %}<|turn>system\n{{ messages[0].content | trim if has_system else ''"
    " }}{% for tool in tools or [] %}<|tool>{{ tool.function | tojson }}<tool|>{% endfor %}"
    "<turn|>\n{% endif %}{% set last = namespace(user=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}{% if m.role == 'user' %}<|turn>user\n"
    "{{ m.content | trim }}<turn|>\n{% elif m.role == 'tool' %}response:{{ m.name }}"
    "{{ m.content | tojson }}<tool_response|>{% elif m.role == 'assistant' %}"
    "{% if not loop.index0 or messages[loop.index0 - 1].role != 'tool' %}<|turn>model\n{% endif %}"
    "{% if m.reasoning_content and loop.index0 > last.user %}"
    "<|channel>thought\n{{ m.reasoning_content }}\n<channel|>{% endif %}{{ m.content | trim }}"
    "{% for call in m.tool_calls or [] %}<|tool_call>call:{{ call.function.name }}"
    "{{ call.function.arguments | tojson }}<tool_call|>{% endfor %}"
    "{{ '<|tool_response>' if m.tool_calls else '<turn|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt and messages[-1].role != 'tool' %}<|turn>model\n{% endif %}"
)
PHI_3 = (
    "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') and m.content %}"
    "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
PHI_4 = (
    "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}"
    "<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
# Mistral 7B v0.3 and Nemo: only the last user turn shows the system text and the tools.
MISTRAL_V3 = (
    "{{ bos_token }}{% set has_system = messages[0].role == 'system' %}"
    "{% set turns = messages[1:] if has_system else messages %}"
    "{% set users = turns | selectattr('role', 'equalto', 'user') | list %}"
    "{% for m in turns %}{% if m.role == 'user' %}{% if tools and m == users[-1] %}"
    "[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "[INST] {{ messages[0].content + '\n\n' if loop.last and has_system else '' }}{{ m.content }}"
    "[/INST]{% elif m.tool_calls %}[TOOL_CALLS] [{% for call in m.tool_calls %}"
    "{{ call.function | tojson }}{% endfor %}]{{ eos_token }}"
    "{% elif m.role == 'tool' %}[TOOL_RESULTS] {{ m.content }}[/TOOL_RESULTS]"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_SMALL_3 = (
    "{{ bos_token }}{% set today = strftime_now('%Y-%m-%d') %}"
    "{% set has_system = messages[0].role == 'system' %}[SYSTEM_PROMPT]"
    "{{ messages[0].content if has_system else 'The current date is ' + today }}[/SYSTEM_PROMPT]"
    "{% for m in (messages[1:] if has_system else messages) %}{% if m.role == 'user' %}"
    "[INST]{{ m.content }}[/INST]{% elif m.role == 'assistant' and not m.tool_calls %}"
    "{{ m.content }}{{ eos_token }}{% else %}"
    "{{ raise_exception('Only user, system and assistant roles are supported!') }}{% endif %}"
    "{% endfor %}"
)
GPT_OSS = (
    "<|start|>system<|message|>You are ChatGPT.\nCurrent date: {{ strftime_now('%Y-%m-%d') }}"
    "<|end|>{% set has_system = messages[0].role == 'system' %}{% if has_system or tools %}"
    "<|start|>developer<|message|>{% if has_system %}# Instructions\n\n{{ messages[0].content }}"
    "\n\n{% endif %}{% for tool in tools or [] %}{{ tool.function | tojson }}{% endfor %}<|end|>"
    "{% endif %}{% for m in (messages[1:] if has_system else messages) %}"
    "{% if m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>"
    "{% elif m.role == 'tool' %}<|start|>functions.weather to=assistant<|channel|>commentary"
    "<|message|>{{ m.content | tojson }}<|end|>"
    "{% elif m.tool_calls %}<|start|>assistant to=functions.{{ m.tool_calls[0].function.name }}"
    "<|channel|>commentary json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% else %}{% if loop.last and m.thinking %}<|start|>assistant<|channel|>analysis<|message|>"
    "{{ m.thinking }}<|end|>{% endif %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
GLM_4_5 = (
    "[gMASK]<sop>{% if tools %}<|system|>\n# Tools" + _TOOLS + "{% endif %}"
    "{% set last = namespace(user=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>"
    "{% if loop.index0 > last.user and m.reasoning_content %}\n<think>{{ m.reasoning_content }}"
    "</think>{% else %}\n<think></think>{% endif %}"
    "{% if m.content %}\n{{ m.content | trim }}{% endif %}"
    "{% for call in m.tool_calls or [] %}\n<tool_call>{{ call.function.name }}\n"
    "{{ call.function.arguments | tojson }}\n</tool_call>{% endfor %}"
    "{% elif m.role == 'tool' %}<|observation|>\n<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% else %}<|{{ m.role }}|>\n{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SMOLLM3 = (
    "<|im_start|>system\nToday Date: {{ strftime_now('%d %B %Y') }}\n\n"
    "{{ messages[0].content if messages[0].role == 'system' else 'You are SmolLM.' }}"
    "{% if xml_tools %}" + _TOOLS.replace("tools", "xml_tools") + "{% endif %}<|im_end|>\n"
    "{% for m in messages %}{% if m.role in ('user', 'tool') %}<|im_start|>user\n{{ m.content }}"
    "<|im_end|>\n{% elif m.role == 'assistant' %}{% generation %}<|im_start|>assistant\n"
    "{{ m.content.lstrip('\n') }}<|im_end|>\n{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OLMO_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role in ('system', 'user') %}"
    "<|{{ m.role }}|>\n{{ m.content }}\n{% elif m.role == 'assistant' %}<|assistant|>\n"
    "{{ m.content }}{{ eos_token }}{% if not loop.last %}\n{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}"
    "<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endif %}"
    "{% if loop.last and add_generation_prompt %}<|assistant|>\n{% endif %}{% endfor %}"
)

R1_END = "<｜end▁of▁sentence｜>"
_CALL = {
    "type": "function",
    "id": "abcdef123",
    "function": {"name": "weather", "arguments": {"city": "Thun"}},
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Get the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "City"}},
            "required": ["city"],
        },
    },
}


def _turn(role: Any, content: str, **fields: Any) -> Message:
    return Message(role=role, content=content, fields=fields)


_USER, _ANSWER = _turn("user", "Where is Thun?"), _turn("assistant", "In Bern. ")
_CALLING = _turn("assistant", "", tool_calls=[_CALL])
_LONG = (_USER, _ANSWER, _turn("user", "And Biel?"), _turn("assistant", "Also there."))


def _chat(*messages: Message, tools: tuple[Any, ...] | None = None) -> Example:
    return Example(id="chats.jsonl:1", messages=messages, tools=tools)


CHATS = {
    "one turn": _chat(_USER, _ANSWER),
    "two turns": _chat(*_LONG),
    "system": _chat(_turn("system", "Be short."), _USER, _ANSWER),
    "thinking": _chat(_USER, _turn("assistant", "In Bern.", reasoning_content="Aare.")),
    "tool call": _chat(_USER, _CALLING, tools=(_TOOL,)),
    "tool result": _chat(
        *(_USER, _CALLING, _turn("tool", "sunny", tool_call_id="abcdef123", name="weather")),
        _turn("assistant", "It is sunny."),
        tools=(_TOOL,),
    ),
    "all turns": _chat(*_LONG),
}
"""The chats; with "all turns", data.completion_turns is all."""

OUTCOMES = {
    "y": "yes",
    "R": "the chat template does not show the answer's reasoning",
    "S": "System role not supported",
    "P": "the chat template renders the prompt differently once the answer follows it",
    "T": "tool|the text of a message|roles must alternate|roles are supported",
    "E": "set data.completion_turns to each",
}
"""What happens: ids equal those of transformers, or a regular expression of the error."""


@dataclass(frozen=True)
class Published:
    """A template, the tokenizer's end token, the outcome for each of CHATS, and TRL's file.

    `template` is the value of data.template.
    """

    text: str
    eos: str
    outcomes: str
    trl_file: str | None = None
    template: str = "chat"


PUBLISHED = {
    "Llama 3.1": Published(LLAMA_3_1, "<|eot_id|>", "yyyRyyy", trl_file="llama3_1"),
    "Llama 3.2": Published(LLAMA_3_2, "<|eot_id|>", "yyyRyyy", trl_file="llama3_2"),
    "Qwen 2.5": Published(QWEN_2_5, "<|im_end|>", "yyyRyyy", trl_file="qwen2_5"),
    "Qwen 3": Published(QWEN_3, "<|im_end|>", "yyyyyyE", trl_file="qwen3"),
    "Gemma 2": Published(GEMMA_2, "<eos>", "yySRTTy", trl_file="gemma"),
    "Gemma 3": Published(GEMMA_3, "<eos>", "yyyRTTy", trl_file="gemma3"),
    "Gemma 4": Published(GEMMA_4, "<eos>", "yyyyyyy", trl_file="gemma4_v5"),
    "Phi 3": Published(PHI_3, "<|endoftext|>", "yyyRTTy", trl_file="phi3"),
    "Phi 4": Published(PHI_4, "<|im_end|>", "yyyRTTy"),
    "Mistral 7B v0.3": Published(MISTRAL_V3, "</s>", "yyPRyyy"),
    "Mistral Small 3": Published(MISTRAL_SMALL_3, "</s>", "yyyRTTy"),
    "DeepSeek R1": Published(DEEPSEEK_R1, R1_END, "PPPPTTP", trl_file="deepseek_r1_distill"),
    "DeepSeek R1, template deepseek-r1": Published(
        DEEPSEEK_R1, R1_END, "yyyyTTE", trl_file="deepseek_r1_distill", template="deepseek-r1"
    ),
    "ChatML, template chatml-tools": Published(
        read_template("chatml-tools"), "<|im_end|>", "yyyRyyy", template="chatml-tools"
    ),
    "gpt-oss": Published(GPT_OSS, "<|return|>", "yyyyyyE", trl_file="gptoss"),
    "GLM 4.5": Published(GLM_4_5, "<|endoftext|>", "yyyyyyE", trl_file="glm4moe"),
    "SmolLM3": Published(SMOLLM3, "<|im_end|>", "yyyRTTy"),
    "OLMo 2": Published(OLMO_2, "<|endoftext|>", "yyyRTTy"),
    "Zephyr": Published(ZEPHYR, "</s>", "yyyRTTy"),
}
