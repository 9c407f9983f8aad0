"""A small tokenizer whose tokens can be determined by hand."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# The format of most chat models; its default system turn contains short user texts.
CHAT_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|start|>system\nYou help.<|end|>\n{% endif %}"
    "{% for message in messages %}"
    "<|start|>{{ message.role }}\n{{ message.content | trim }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def tiny_tokenizer(
    corpus: tuple[str, ...] = (), *, vocab_size: int = 259, chat_template: str | None = None
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer; at its smallest size every ASCII character is one token.

    `<|end|>` ends a sequence, `<|start|>` and `<|end|>` are one token each.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|pad|>", "<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=chat_template,
    )
