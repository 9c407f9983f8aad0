"""Benchmark prompts in the checkpoint's template: the tokens of training, and thinking models."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from evals.engine.batching import ignore_progress
from evals.engine.loaded_model import LoadedModel
from evals.results.response_log import ResponseLog
from tests.trainers.data import chat_templates
from trainers.data.examples import Example, Message
from trainers.data.template import Template

# Importing lm-eval takes seconds.
pytestmark = pytest.mark.slow

# Source: HuggingFaceH4/zephyr-7b-beta; TinyLlama/TinyLlama-1.1B-Chat-v1.0 has the same. It writes
# no start token, but the tokenizer adds one to every text.
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + "
    "message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' "
    "+ message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
# Source: meta-llama/Meta-Llama-3-8B-Instruct.
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
TEMPLATES = {
    "zephyr": ZEPHYR,
    "llama 3": LLAMA_3,
    "gemma": chat_templates.MERGING,
    "chatml": chat_templates.CHATML,
    "phi 3": chat_templates.TWO_ENDS,
}


def engine_lm(loaded: LoadedModel, **settings: Any) -> Any:
    from evals.harness.lm import EngineLM

    return EngineLM(
        loaded, ResponseLog(None, {}), batch_size=None, seed=0, on_progress=ignore_progress,
        **{"apply_template": True} | settings,
    )  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_token_ids_are_those_of_training_without_a_second_start_token(
    name: str, load, tiny_path: Path
) -> None:
    loaded = load(tiny_path)
    tokenizer = loaded.tokenizer
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    tokenizer.chat_template = TEMPLATES[name]
    loaded = replace(loaded, template=Template("chat", tokenizer))
    turns = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "Sort the items."},
    ]
    lm = engine_lm(loaded)
    text = lm.apply_chat_template(turns)
    (pair,) = lm._encode_pairs([(text, " list.sort")])
    (generated,) = lm._encode_prompts([text])
    expected = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    messages = [Message(role=turn["role"], content=turn["content"]) for turn in turns]  # type: ignore[arg-type]
    example = Example(id="1", messages=(*messages, Message(role="assistant", content="x")))
    assert pair.context_ids == generated == loaded.template.encode_prompt(example)
    assert generated == expected
    assert generated.count(tokenizer.bos_token_id) == (name in ("llama 3", "gemma"))


@pytest.mark.parametrize("is_special", [True, False])
def test_the_thinking_of_an_output_is_removed_and_stop_strings_end_only_the_answer(
    load, tiny_path: Path, is_special: bool
) -> None:
    loaded = load(tiny_path)
    if is_special:
        loaded.tokenizer.add_special_tokens({"extra_special_tokens": ["</think>"]})
    lm = engine_lm(loaded, think_end_token="</think>")
    ids = loaded.tokenizer(
        "First,\n\nno.</think>wait</think>\n\nParis.\n\nNext",
    )["input_ids"]
    assert lm._answer(ids, ["\n\n"]) == "Paris."
    ids = loaded.tokenizer("never ends\n\nits thinking")["input_ids"]
    assert lm._answer(ids, ["\n\n"]) == "never ends"


def test_stop_strings_do_not_end_generation_within_thinking(taught: LoadedModel) -> None:
    settings = {"until": ["s"], "max_gen_toks": 32}
    request = SimpleNamespace(doc_id=0, task_name="t", args=("Join two paths.\n\n", settings))
    assert engine_lm(taught).generate_until([request]) == ["o"]
    assert engine_lm(taught, think_end_token="path").generate_until([request]) == [".join"]
