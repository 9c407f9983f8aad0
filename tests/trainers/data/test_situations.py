# ruff: noqa: E501 (one row of a table in a line)
"""Situations of real data, from the file to each token's weight, or to the message of the error."""

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainers.data.chat_templates import tokenizer_with
from trainers.data.readers import read_examples
from trainers.data.roles import EncodedExample
from trainers.data.tokenize import encode_examples
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError
from trainers.loss_config import LossConfig
from trainers.token_weights import token_weights

Run = tuple[str, float]
CALL = {"type": "function", "function": {"name": "rain", "arguments": {"in": "Thun"}}}
TEXT_CALL = {"type": "function", "function": {"name": "rain", "arguments": '{"in":"Thun"}'}}
TOOL = {"type": "function", "function": {"name": "rain"}}
# PLW 0.1 and weights of single roles, so that most roles have a weight of their own.
ROLES = {"system": 0.2, "tool": 0.3, "history": 0.4, "thinking": 0.8}


def user(content: Any = "Hi", **others: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **others}


def bot(content: Any = "Ho", **others: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **others}


def tool(content: Any = "wet", **others: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content, **others}


def chat(*turns: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"messages": list(turns), **others}


def part(text: str, weight: float | None = None) -> dict[str, Any]:
    return {"type": "text", "text": text} | ({} if weight is None else {"weight": weight})


def write(record: Any, folder: Path) -> Path:
    """Write the content of a file by its name, or one record as a line."""
    name, content = record if isinstance(record, tuple) else ("d.jsonl", json.dumps(record))
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def weighted(path: Path, chat_template: str, **settings: Any) -> list[list[Run]]:
    """Return runs of tokens with the same weight for each example; the first token has 0."""
    config = DataConfig(path=str(path), heldout_examples=0, **settings)
    loss = LossConfig.model_validate({"prompt_loss_weight": 0.1, "role_weights": ROLES})
    tokenizer = tokenizer_with(chat_template)
    examples = read_examples(**config.model_dump(include={"path", *settings}))

    def runs(example: EncodedExample) -> Iterator[Run]:
        weights = np.round(token_weights(example, loss) * example.sample_weight, 4)
        pairs = zip(example.input_ids, weights.tolist(), strict=True)
        for weight, tokens in itertools.groupby(pairs, lambda pair: pair[1]):
            yield tokenizer.decode([int(token) for token, _ in tokens]), weight

    return [list(runs(example)) for example in encode_examples(examples, config, tokenizer)]


START = ("<|im_start|>", 0.0)
ASK = "Hi<|im_end|>\n<|im_start|>assistant\n"
AGAIN = "\n<|im_start|>user\n" + ASK
HI = [START, ("user\n" + ASK, 0.1)]
HO = ("Ho<|im_end|>", 1.0)
THOUGHT = "<think>\nhm\n</think>\n\n"
CALLED = '<tool_call>\n{"name": "rain", "arguments": {"in": "Thun"}}\n</tool_call><|im_end|>'
ANSWERED = [
    ("\n<|im_start|>user\n<tool_response>\n", 0.1),
    ("wet", 0.3),
    ("\n</tool_response><|im_end|>\n<|im_start|>assistant\n", 0.1),
    ("<think>\n\n</think>\n\nHo<|im_end|>", 1.0),
]
USED: dict[str, tuple[str, Any, list[Run], dict[str, Any]]] = {
    "fraction on an answer": ("chatml", chat(user(), bot(weight=0.3)), [*HI, ("Ho<|im_end|>", 0.3)], {}),
    "two equal weights": ("chatml", chat(user(), bot(weight=2, loss_scale=2.0)), [*HI, ("Ho<|im_end|>", 2.0)], {}),
    "null weight": ("chatml", chat(user(), bot(weight=None)), [*HI, HO], {}),
    "earlier answer of weight 0 with its end token": (
        "chatml", chat(user(), bot("No", weight=0), user(), bot()),
        [*HI, ("No<|im_end|>", 0.0), (AGAIN, 0.1), HO], {},
    ),
    "train 0 is false": (
        "chatml", chat(user(), bot("No", train=0), user(), bot()),
        [*HI, ("No<|im_end|>", 0.0), (AGAIN, 0.1), HO], {"completion_turns": "all"},
    ),
    "earlier answer selected by its weight": (
        "chatml", chat(user(), bot("No", weight=0.25), user(), bot()),
        [*HI, ("No<|im_end|>", 0.25), (AGAIN, 0.1), HO], {},
    ),
    "history": (
        "chatml", chat(user(), bot("No"), user(), bot()),
        [*HI, ("No", 0.4), ("<|im_end|>" + AGAIN, 0.1), HO], {},
    ),
    "end tokens in the data of all answers": (
        "chatml", chat(user(), bot("No<|im_end|>"), user(), bot("Ho<|im_end|>\n")),
        [*HI, ("No<|im_end|>", 1.0), (AGAIN, 0.1), HO], {"completion_turns": "all"},
    ),
    "half a user turn": (
        "chatml", chat(user("Hi", weight=0.5), bot()),
        [START, ("user\n", 0.1), ("Hi", 0.05), ("<|im_end|>\n<|im_start|>assistant\n", 0.1), HO], {},
    ),
    "parts": (
        "chatml", chat(user(), bot([part("good ", 1), part("bad ", 0), part("half", 0.5)])),
        [*HI, ("good ", 1.0), ("bad ", 0.0), ("half", 0.5), ("<|im_end|>", 1.0)], {},
    ),
    "parts within a weighted message": (
        "chatml", chat(user(), bot([part("all "), part("half", 0.5)], weight=0.5)),
        [*HI, ("all ", 0.5), ("half", 0.25), ("<|im_end|>", 0.5)], {},
    ),
    "system column and a sample weight": (
        "chatml", {"prompt": "Hi", "completion": "Ho", "system": "Sy", "weight": 0.5},
        [START, ("system\n", 0.05), ("Sy", 0.1), ("<|im_end|>\n<|im_start|>user\n" + ASK, 0.05),
         ("Ho<|im_end|>", 0.5)], {},
    ),
    "history as a string of JSON": (
        "chatml", {"instruction": "Hi", "output": "Ho", "history": '[["Hi", "No"]]'},
        [*HI, ("No", 0.4), ("<|im_end|>" + AGAIN, 0.1), HO], {},
    ),
    "completion of several messages": (
        "chatml", {"prompt": [user()], "completion": [bot("No"), user(), bot()]},
        [*HI, ("No<|im_end|>", 1.0), (AGAIN, 0.1), HO], {},
    ),
    "chosen repeats the prompt": (
        "chatml", {"prompt": "Hi", "chosen": [user(), bot()], "rejected": [user(), bot("x")]},
        [*HI, HO], {},
    ),
    "weighted ShareGPT": (
        "chatml",
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho", "weight": 0.5}]},
        [*HI, ("Ho<|im_end|>", 0.5)], {},
    ),
    "reasoning and weight": (
        "thinking", chat(user(), bot(reasoning_content="hm", weight=0.5)),
        [*HI, (THOUGHT, 0.4), ("Ho<|im_end|>", 0.5)], {},
    ),
    "thinking in the content": (
        "thinking", chat(user(), bot("<think>hm</think>Ho")), [*HI, (THOUGHT, 0.8), HO], {},
    ),
    "tool call and result": (
        "thinking", chat(user(), bot("", tool_calls=[CALL], reasoning_content="hm"), tool(), bot()),
        [*HI, (THOUGHT + CALLED, 0.4), *ANSWERED], {},
    ),
    "thinking in the content before a final tool call": (
        "thinking",
        chat(user(), bot("<think>hm</think>", tool_calls=[CALL])),
        [*HI, (THOUGHT, 0.8), (CALLED, 1.0)],
        {},
    ),
    "thinking in the content before an earlier tool call": (
        "thinking",
        chat(user(), bot("<think>hm</think>", tool_calls=[CALL]), tool(), bot()),
        [*HI, (THOUGHT + CALLED, 0.4), *ANSWERED],
        {},
    ),
    "nothing but thinking": (
        "thinking",
        chat(user(), bot("<think>hm</think>")),
        [*HI, (THOUGHT, 0.8), ("<|im_end|>", 1.0)],
        {},
    ),
    "thinking in the content of a tool call": (
        "thinking",
        chat(user(), bot("<think>hm</think>See", tool_calls=[CALL]), tool(), bot()),
        [*HI, (THOUGHT + "See" + CALLED, 0.4), *ANSWERED],
        {},
    ),
    "tool call of weight 0": (
        "thinking", chat(user(), bot("", tool_calls=[CALL], weight=0), tool(), bot()),
        [*HI, ("<think>\n\n</think>\n\n" + CALLED, 0.0), *ANSWERED], {},
    ),
    "tool result of half the weight, tools as JSON": (
        "thinking", chat(user(), bot("", tool_calls=[CALL]), tool(weight=0.5), bot(), tools=json.dumps([TOOL])),
        [START, ("system\n# Tools\n" + json.dumps(TOOL) + "\n<|im_end|>\n<|im_start|>user\n" + ASK, 0.1),
         ("<think>\n\n</think>\n\n" + CALLED, 0.4), ANSWERED[0], ("wet", 0.15), *ANSWERED[2:]], {},
    ),
    "arguments as JSON": (
        "thinking",
        chat(user(), bot(None, tool_calls=[{"function": {"name": "rain", "arguments": '{"in":"Thun"}'}}])),
        [*HI, ("<think>\n\n</think>\n\n" + CALLED, 1.0)],
        {},
    ),
    "function call of OpenAI's first format": (
        "thinking",
        chat(user(), bot(None, function_call={"name": "rain", "arguments": '{"in":"Thun"}'})),
        [*HI, ("<think>\n\n</think>\n\n" + CALLED, 1.0)],
        {},
    ),
    "arguments in a template that joins them with text": (
        "text-arguments", chat(user(), bot(None, tool_calls=[CALL]), tool(), bot()),
        [("<|user|>", 0.0), ("Hi<|assistant|>", 0.1), ('function rain\n{"in": "Thun"}<|end|>', 0.4),
         ("<|tool|>", 0.1), ("wet", 0.3), ("<|assistant|>", 0.1), ("Ho<|end|>", 1.0)], {},
    ),
    "arguments as JSON in a template that joins them with text": (
        "text-arguments", chat(user(), bot(None, tool_calls=[TEXT_CALL])),
        [("<|user|>", 0.0), ("Hi<|assistant|>", 0.1), ('function rain\n{"in":"Thun"}<|end|>', 1.0)], {},
    ),
    "arguments in a template that prints them": (
        "printed-arguments", chat(user(), bot(None, tool_calls=[CALL])),
        [("<|user|>", 0.0), ("Hi<|assistant|>", 0.1), ('function rain\n{"in": "Thun"}<|end|>', 1.0)], {},
    ),
    "name of a user": (
        "named", chat(user(name="Ann"), bot()),
        [START, ("user Ann\n" + ASK, 0.1), HO], {},
    ),
    "earlier answer whose parts have weight 0": (
        "chatml", chat(user(), bot([part("N", 0), part("o", 0)]), user(), bot()),
        [*HI, ("No<|im_end|>", 0.0), (AGAIN, 0.1), HO], {"completion_turns": "all"},
    ),
    "end token in the data of a template without one": (
        "chatml", {"prompt": "Hi", "completion": "Ho<eos>\n"},
        [("H", 0.0), ("i\n\n", 0.1), ("Ho<eos>", 1.0)], {"template": "plain"},
    ),
    "thinking as a part of the content": (
        "thinking", chat(user(), bot([{"type": "thinking", "thinking": "hm", "signature": "x"}, part("Ho")])),
        [*HI, (THOUGHT, 0.8), HO], {},
    ),
    "thinking as Mistral's parts, weights of the text": (
        "thinking",
        chat(user(), bot([{"type": "thinking", "thinking": [part("hm")]}, part("H", 0.5), part("o", 0)])),
        [*HI, (THOUGHT, 0.8), ("H", 0.5), ("o", 0.0), ("<|im_end|>", 1.0)], {},
    ),
    "empty system turn": (
        "chatml", chat({"role": "system", "content": ""}, user(), bot()),
        [START, ("system\n<|im_end|>\n<|im_start|>user\n" + ASK, 0.1), HO], {},
    ),
    "tool that returns nothing": (
        "thinking", chat(user(), bot("", tool_calls=[CALL]), tool(""), bot()),
        [*HI, ("<think>\n\n</think>\n\n" + CALLED, 0.4),
         ("\n<|im_start|>user\n<tool_response>\n\n</tool_response><|im_end|>\n<|im_start|>assistant\n", 0.1),
         ANSWERED[3]], {},
    ),
    "OpenAI's developer turn and flag of parallel calls": (
        "chatml", chat({"role": "developer", "content": "Sy"}, user(), bot(refusal=None), parallel_tool_calls=False),
        [START, ("system\n", 0.1), ("Sy", 0.2), ("<|im_end|>\n<|im_start|>user\n" + ASK, 0.1), HO], {},
    ),
    "preference data of LLaMA-Factory as ShareGPT": (
        "chatml",
        {"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Ho"},
         "rejected": {"from": "gpt", "value": "No"}},
        [*HI, HO], {},
    ),
    "preference data of LLaMA-Factory as Alpaca": (
        "chatml", {"instruction": "H", "input": "i", "chosen": "Ho", "rejected": "No"},
        [START, ("user\nH\n\ni<|im_end|>\n<|im_start|>assistant\n", 0.1), HO], {},
    ),
    "question and chosen answer": ("chatml", {"question": "Hi", "chosen": "Ho", "rejected": "No"}, [*HI, HO], {}),
    "query, response and history of ms-swift": (
        "chatml", {"system": "Sy", "query": "Hi", "response": "Ho", "history": [["Hi", "No"]]},
        [START, ("system\n", 0.1), ("Sy", 0.2), ("<|im_end|>\n<|im_start|>user\n" + ASK, 0.1), ("No", 0.4),
         ("<|im_end|>" + AGAIN, 0.1), HO], {},
    ),
    "question of Orca with its system prompt": (
        "chatml", {"id": "flan.1", "system_prompt": "Sy", "question": "Hi", "response": "Ho"},
        [START, ("system\n", 0.1), ("Sy", 0.2), ("<|im_end|>\n<|im_start|>user\n" + ASK, 0.1), HO], {},
    ),
    "ShareGPT that begins with the model": (
        "chatml",
        {"conversations": [{"from": "gpt", "value": "No"}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
        [START, ("assistant\n", 0.1), ("No", 0.4), ("<|im_end|>" + AGAIN, 0.1), HO], {},
    ),
    "two answers in a row": (
        "chatml", chat(user(), bot("No"), bot()),
        [*HI, ("No<|im_end|>", 1.0), ("\n<|im_start|>assistant\n", 0.1), HO], {"completion_turns": "all"},
    ),
    "Axolotl's flags on turns of the user": (
        "chatml",
        {"conversations": [{"from": "human", "value": "Hi", "train": False}, {"from": "gpt", "value": "Ho", "train": True}]},
        [START, ("user\n", 0.1), ("Hi", 0.0), ("<|im_end|>\n<|im_start|>assistant\n", 0.1), HO], {},
    ),
    "system turn of weight 0": (
        "chatml", chat({"role": "system", "content": "Sy", "weight": 0}, user(), bot()),
        [START, ("system\n", 0.1), ("Sy", 0.0), ("<|im_end|>\n<|im_start|>user\n" + ASK, 0.1), HO], {},
    ),
    "label of KTO for a good answer": ("chatml", {"prompt": "Hi", "completion": "Ho", "label": True}, [*HI, HO], {}),
    "messages as a string of JSON with weights": (
        "chatml", {"messages": json.dumps([user(), bot(weight=0.5)])}, [*HI, ("Ho<|im_end|>", 0.5)], {},
    ),
    "ms-swift's loss of an earlier answer": (
        "chatml", chat(user(), bot("No", loss=False), user(), bot(loss=True), channel="math"),
        [*HI, ("No<|im_end|>", 0.0), (AGAIN, 0.1), HO], {"completion_turns": "all"},
    ),
    "tool calls as a string of JSON": (
        "thinking", chat(user(), bot(None, tool_calls=json.dumps([CALL]))),
        [*HI, ("<think>\n\n</think>\n\n" + CALLED, 1.0)], {},
    ),
    "nulls and empty lists of other fields": (
        "chatml",
        chat(user(tool_calls=None, name=None), bot(tool_calls=[], function_call=None, audio=None, annotations=[]), images=[], tools=None),
        [*HI, HO], {},
    ),
    "answer that is a list of JSON": (
        "chatml", {"prompt": "Hi", "completion": '[{"a": 1}]'}, [*HI, ('[{"a": 1}]<|im_end|>', 1.0)], {},
    ),
    "answer that is a closing tag": (
        "chatml", {"prompt": "Hi", "completion": "</legend>"}, [*HI, ("</legend><|im_end|>", 1.0)], {},
    ),
    "answer that is a special word": (
        "chatml", {"prompt": "Hi", "completion": "<|nospeech|>"}, [*HI, ("<|nospeech|><|im_end|>", 1.0)], {},
    ),
    "template that trims, part at its edge": (
        "merging", chat(user(), bot([part("  good ", 0.5), part("x  ", 2)])),
        [("<bos>", 0.0), ("<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", 0.1),
         ("good ", 0.5), ("x", 2.0), ("<end_of_turn>", 1.0)], {},
    ),
    "date": (
        "dated", chat(user(), bot()),
        [("T", 0.0), ("oday: 29 Nov 2026\n<|im_start|>user\n" + ASK, 0.1), HO],
        {"template_args": {"date": "2026-11-29"}},
    ),
    "system turn survives truncation": (
        "chatml", chat({"role": "system", "content": "Sy"}, user("0123456789"), bot()),
        [START, ("system\n", 0.1), ("Sy", 0.2), ("<|im_end|>\n<|im_start|>user\n", 0.1), ("6789", 0.1),
         ("<|im_end|>\n<|im_start|>assistant\n", 0.1), HO], {"max_length": 38},
    ),
    "columns, one of them a weight": (
        "chatml", {"q": "Hi", "a": "Ho", "w": 0.5}, [START, ("user\n" + ASK, 0.05), ("Ho<|im_end|>", 0.5)],
        {"columns": {"prompt": "q", "completion": "a", "weight": "w"}},
    ),
    "CSV with line ends, quotes and a weight": (
        "chatml", ("d.csv", '\ufeffprompt,completion,weight\nHi,"a\n""b""",0.5\n'),
        [START, ("user\n" + ASK, 0.05), ('a\n"b"<|im_end|>', 0.5)], {},
    ),
    "tokens in CSV": (
        "chatml", ("d.csv", 'input_ids,labels,weight\n"[67, 68, 69]","[-100, 68, 69]",0.5\n'),
        [("b", 0.0), ("cd", 0.5)], {},
    ),
    "gzip of two members": (
        "chatml", ("d.jsonl.gz", gzip.compress(b'{"prompt": "Hi",') + gzip.compress(b'"completion": "Ho"}')),
        [*HI, HO], {},
    ),
}  # fmt: skip


def merged(runs: list[Run]) -> list[Run]:
    """Join neighbours of the same weight."""
    groups = itertools.groupby(runs, lambda run: run[1])
    return [("".join(text for text, _ in group), weight) for weight, group in groups]


@pytest.mark.parametrize(("template", "record", "expected", "settings"), USED.values(), ids=USED)
def test_tokens_have_the_weights_of_the_data(
    template: str, record: Any, expected: list[Run], settings: dict[str, Any], tmp_path: Path
) -> None:
    assert weighted(write(record, tmp_path), template, **settings) == [merged(expected)]


REJECTED: dict[str, tuple[str, Any, str]] = {
    "weight as text": ("chatml", chat(user(), bot(weight="0")), 'messages[1].weight must be 0 or a number from 1e-12 to 1e+12, got "0"'),
    "flag as text": ("chatml", chat(user(), bot(train="false")), 'messages[1].train must be true or false, got "false"'),
    "weight below 0": ("chatml", chat(user(), bot(weight=-1)), "messages[1].weight must be 0 or a number from 1e-12 to 1e+12, got -1"),
    "infinite weight": ("chatml", chat(user(), bot(weight=float("inf"))), "messages[1].weight must be 0 or a number from 1e-12 to 1e+12, got Infinity"),
    "weight of a sample that is no number": ("chatml", {"prompt": "a", "completion": "b", "weight": float("nan")}, "weight must be 0 or a number from 1e-12 to 1e+12, got NaN"),
    "two weights": ("chatml", chat(user(), bot(weight=0.3, train=False)), "messages[1] has contradictory weights: weight 0.3, train false"),
    "last answer of weight 0": ("chatml", chat(user(), bot("a", weight=1), user(), bot(weight=0)), "the last assistant turn is not trained on (weight 0 or train false)"),
    "only answer of weight 0": ("chatml", chat(user(), bot(weight=0)), "all records are dropped (weight 0)"),
    "answer whose parts all have weight 0": ("chatml", chat(user(), bot([part("N", 0), part(" "), part("o", 0)])), "all records are dropped (weight 0)"),
    "last answer whose parts have weight 0": ("chatml", chat(user(), bot("a"), user(), bot([part("b", 0)])), "the last assistant turn is not trained on (weight 0 or train false)"),
    "answer of an end token": ("chatml", chat(user(), bot("<|im_end|>")), 'messages[1].content must not be empty, got "<|im_end|>"; fill it in, or add empty to data.drop'),
    "completion of an end token": ("chatml", {"prompt": "Hi", "completion": "</s>\n"}, 'completion must not be empty, got "</s>\\n"'),
    "earlier answer of an end token": ("chatml", chat(user(), bot("<|eot_id|>"), user(), bot()), 'messages[1].content must not be empty, got "<|eot_id|>"'),
    "answer of an end token with an unusual name": ("unusual-end", chat(user(), bot("<|text|>")), "an answer is only the end token <|text|>, so it is empty; fill it in, or remove the record"),
    "channel of gpt-oss": ("chatml", chat(user(), bot(channel="analysis"), bot(channel="final")), "messages[1].channel is not supported; list channel in data.ignore to train without it"),
    "thinking after the text": ("thinking", chat(user(), bot([part("Ho"), {"type": "thinking", "thinking": "hm"}])), "messages[1].content[1] must be a part of type text"),
    "thinking of a user as a part": ("thinking", chat(user([{"type": "thinking", "thinking": "hm"}, part("Hi")]), bot()), "messages[0].content[0] must be a part of type text"),
    "thinking in a part and in a field": ("thinking", chat(user(), bot([{"type": "thinking", "thinking": "hm"}, part("Ho")], reasoning_content="hm")), "messages[1].content[0] must be a part of type text"),
    "weight of thinking": ("thinking", chat(user(), bot([{"type": "thinking", "thinking": "hm", "weight": 0}, part("Ho")])), "messages[1].content[0].weight is not supported"),
    "preference data of OpenAI": ("chatml", {"input": chat(user()), "preferred_output": [bot()], "non_preferred_output": [bot("No")]}, "the fields match no accepted form: input, preferred_output, non_preferred_output"),
    "chats of TRL with arguments": ("chatml", {"prompt": [user()], "completion": [bot()], "chat_template_kwargs": {"enable_thinking": False}}, "the field chat_template_kwargs is not supported"),
    "segments of Axolotl": ("chatml", {"segments": [{"label": True, "text": "a"}]}, "the fields match no accepted form: segments"),
    "mask of NeMo": ("chatml", {"mask": "User", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "the field mask is not supported"),
    "column of lists": ("chatml", {"messages": {"role": ["user", "assistant"], "content": ["Hi", "Ho"]}}, "messages must be a list of messages"),
    "texts to continue": ("chatml", {"text": "Hi"}, "the fields match no accepted form: text"),
    "other answer of ms-swift": ("chatml", chat(user(), bot(), rejected_response="No"), "the field rejected_response is not supported"),
    "label of a class": ("chatml", {"prompt": "Hi", "completion": "Ho", "label": 3}, "label must be true or false, got 3"),
    "flag of a part": ("chatml", chat(user(), bot([{"type": "text", "text": "Ho", "train": False}])), "messages[1].content[0].train is not supported"),
    "weights of turns beside them": ("chatml", chat(user(), bot(), weights=[0, 1]), "the field weights is not supported"),
    "conversation of LMSYS": ("chatml", {"conversation": [user(), bot()]}, "the fields match no accepted form: conversation; did you mean conversations? a record needs"),
    "two texts of the chosen answer": ("chatml", chat(user(), bot(), chosen="Ho", rejected="No"), "the field chosen is not supported"),
    "parts of OpenAI's responses": ("chatml", chat(user([{"type": "input_text", "text": "Hi"}]), bot()), "messages[0].content[0] must be a part of type text"),
    "all samples of weight 0": ("chatml", {"prompt": "a", "completion": "b", "weight": 0}, "all records are dropped (weight 0)"),
    "name twice": ("chatml", ("d.jsonl", '{"prompt": "a", "completion": "b", "completion": "c"}'), 'not valid JSON: an object has the name "completion" twice'),
    "weight twice": ("chatml", ("d.json", '[{"messages": [{"role": "user", "content": "a", "weight": 0, "weight": 1}]}]'), 'not valid JSON: an object has the name "weight" twice'),
    "half a pair in a call": ("thinking", chat(user(), bot("", tool_calls=[{"function": {"name": "w", "arguments": {"a": "\ud83d"}}}])), "messages[1].tool_calls contains half a surrogate pair"),
    "half a pair in tools": ("thinking", chat(user(), bot(), tools=[{"name": "\ud83d"}]), "tools contains half a surrogate pair"),
    "half a pair in the system text": ("chatml", {"prompt": "a", "completion": "b", "system": "\ud83d"}, "system contains half a surrogate pair"),
    "half a pair in a name": ("chatml", {"prompt": "a", "completion": "b", "\ud83d": 1}, "a field's name contains half a surrogate pair"),
    "another prompt in chosen": ("chatml", {"prompt": "Hi!", "chosen": [user(), bot()], "rejected": []}, "prompt ends with a user turn, so chosen must begin with an assistant turn or repeat prompt exactly, got a user turn"),
    "reasoning of a user": ("thinking", chat(user(reasoning_content="hm"), bot()), "messages[0].reasoning_content must be in an assistant turn"),
    "call id of a user": ("thinking", chat(user(tool_call_id="1"), bot()), "messages[0].tool_call_id must be in a tool turn"),
    "calls of a user": ("thinking", chat(user(tool_calls=[CALL]), bot()), "messages[0].tool_calls must be in an assistant turn"),
    "arguments as damaged JSON": ("thinking", chat(user(), bot(None, tool_calls=[{"name": "w", "arguments": "{a"}])), "messages[1].tool_calls[0].arguments is not valid JSON"),
    "tools that the template does not show": ("chatml", chat(user(), bot(), tools=[TOOL]), "the chat template does not show the record's tools"),
    "tools as damaged JSON": ("thinking", chat(user(), bot(), tools='[{"a":'), "tools is not valid JSON: Expecting value at column 7"),
    "character offsets of weights": ("chatml", chat(user(), bot(train_detail=[{"begin_offset": 0}])), "messages[1].train_detail is not supported"),
    "two system texts": ("chatml", chat({"role": "system", "content": "S"}, user(), bot(), system="T"), "the record has two different system texts"),
    "unknown ShareGPT role": ("chatml", {"conversations": [{"from": "chatgpt", "value": "a"}]}, "conversations[0].from must be one of"),
    "gzip without its suffix": ("chatml", ("d.jsonl", gzip.compress(b"{}")), "the file is compressed"),
    "no gzip in spite of its suffix": ("chatml", ("d.jsonl.gz", "{}"), "cannot be read: zlib inflate failed: incorrect header check"),
    "cut gzip": ("chatml", ("d.jsonl.gz", gzip.compress(b'{"prompt": "a", "completion": "b"}')[:-4]), "cannot be read: Truncated compressed stream"),
    "tokens of another length": ("chatml", {"input_ids": [5, 6, 7], "labels": [-100, 6]}, "labels has 2 values, but input_ids has 3"),
    "negative id": ("chatml", {"input_ids": [5, -6], "labels": [-100, -6]}, "input_ids must be a list of token ids, integers from 0 to 2147483647, got -6"),
    "shifted labels": ("chatml", {"input_ids": [5, 6], "labels": [6, -100]}, "labels[0] must be -100 or the id at the same position, got 6 for 5"),
    "completion of the first token": ("chatml", {"input_ids": [5, 6], "labels": [5, -100]}, "no token after the first belongs to the completion"),
}  # fmt: skip


DAMAGED: dict[str, tuple[Any, str]] = {
    "messages": ({"messages": '[{"role": "user"'}, "messages is not valid JSON: Expecting ',' delimiter at column 17"),
    "messages in Python's notation": ({"prompt": "[{'role': 'user', 'content': 'Hi'}]", "completion": "Ho"}, "prompt is not valid JSON: Expecting property name enclosed in double quotes at column 3"),
    "history": ({"instruction": "a", "output": "b", "history": '[["a"'}, "history is not valid JSON: Expecting ',' delimiter at column 6"),
    "tools": (chat(user(), bot(), tools="[{"), "tools is not valid JSON: Expecting property name enclosed in double quotes at column 3"),
    "tool calls": (chat(user(), bot("", tool_calls="[{")), "messages[1].tool_calls is not valid JSON"),
    "arguments": (chat(user(), bot("", tool_calls=[{"name": "w", "arguments": "{a"}])), "messages[1].tool_calls[0].arguments is not valid JSON"),
    "function call": ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": "{a"}]}, "conversations[1] is not valid JSON"),
    "tokens": ({"input_ids": "[1, 2", "labels": "[1, 2]"}, "input_ids is not valid JSON"),
    "image part": (chat(user([{"type": "image"}]), bot()), "messages[0].content[0] must be a part of type text"),
}  # fmt: skip


@pytest.mark.parametrize(("record", "message"), DAMAGED.values(), ids=DAMAGED)
def test_one_fault_is_one_problem(record: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        weighted(write(record, tmp_path), "chatml")
    [problem] = raised.value.problems
    assert message in str(problem)


@pytest.mark.parametrize(("template", "record", "message"), REJECTED.values(), ids=REJECTED)
def test_nothing_of_the_data_is_ignored(
    template: str, record: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as raised:
        weighted(write(record, tmp_path), template)
    assert message in str(raised.value)
