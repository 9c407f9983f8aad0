"""On-disk cache of tokenised examples, written once and memory-mapped by all trials and ranks."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple

import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from trainers.data.example_store import StoredExamples
from trainers.data.examples import Example
from trainers.data.template import TOKENS_VERSION, Template
from trainers.data.tokenized import EncodedBatch, EncodedExamples
from trainers.data_config import DataConfig
from trainers.foundation.file_cache import load_or_write

# Part of the key: increase it when the file format changes.
FORMAT_VERSION = 4


def cache_key(examples: Sequence[Example], template: Template, config: DataConfig) -> str:
    """Return the SHA-256, in hexadecimal, of all inputs that determine the tokens of `examples`."""
    settings = {
        "format": FORMAT_VERSION,
        "tokens": TOKENS_VERSION,
        "template": template.source if template.source is not None else template.name,
        "is_chat": template.is_chat,
        "template_args": template.args,
        "max_length": config.max_length,
        "completion_turns": config.completion_turns,
        "too_long": config.too_long,
        "truncation_side": config.truncation_side,
        "too_long_completion": config.too_long_completion,
        "tokenizer": _tokenizer_content(template.tokenizer),
        "versions": [transformers.__version__, tokenizers.__version__],
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    if isinstance(examples, StoredExamples):
        digest.update(examples.digest.encode())
        return digest.hexdigest()
    for example in examples:
        messages = [
            (
                *(message.role, message.content, message.fields),
                *(message.train, message.weight, [asdict(one) for one in message.part_weights]),
            )
            for message in example.messages
        ]
        content = (
            *(example.id, messages, example.instruction, example.input, example.tools),
            *(example.sample_weight, example.tokens and astuple(example.tokens)),
        )
        digest.update(b"\n" + json.dumps(content, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    backend = tokenizer.backend_tokenizer
    if backend.padding is not None or backend.truncation is not None:
        # These are the state of the tokenizer's last call; our calls neither pad nor truncate.
        backend = tokenizers.Tokenizer.from_str(backend.to_str())
        backend.no_padding()
        backend.no_truncation()
    digest = hashlib.sha256(backend.to_str().encode()).hexdigest()
    return [digest, tokenizer.special_tokens_map, tokenizer.split_special_tokens]


def load_or_encode(
    key: str, encode: Callable[[], Iterable[EncodedBatch]], *, is_main: bool = True
) -> EncodedExamples:
    """Return the examples for `key` from the cache, or encode and store them.

    One process encodes, the others wait for it. If the default cache folder is not writable, the
    examples stay in memory, and the process with `is_main` logs a warning.

    Raises:
        InputError: the folder in PLW_CACHE_DIR is not writable, or a disk is full.
    """
    stored = load_or_write(
        f"tokens/{key}.arrow",
        content="tokens",
        read=EncodedExamples.read,
        write=lambda path: EncodedExamples.write(path, encode()),
        is_main=is_main,
    )
    return EncodedExamples.of(encode()) if stored is None else stored
