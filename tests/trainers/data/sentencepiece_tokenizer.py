"""Tokenizers that write a space at the start of a text, as Llama 2, Mistral and Phi 3 have."""

from typing import Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# Metaspace writes the space at the start of the whole text, Prepend also after special tokens.
Kind = Literal["metaspace", "prepend"]
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.:<|>/\n"


def spaced_tokenizer(kind: Kind, chat_template: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token per character, and one for each letter after a space."""
    pieces = ["<unk>", "<s>", "</s>", "\u2581", *_LETTERS, *(f"\u2581{one}" for one in _LETTERS)]
    model = models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[("\u2581", one) for one in _LETTERS],
        unk_token="<unk>",
    )
    tokenizer = Tokenizer(model)
    if kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    tokenizer.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = chat_template
    return fast
