"""Code changes after which the tokens of some models' completions differ.

Which models are affected depends on the tokenizer, unlike the changes in `behaviour`, which depend
on the settings.
"""

from transformers import PreTrainedTokenizerBase

from trainers.data.chat_rendering import ChatRenderer
from trainers.data.span_tokenizer import marks_start_of_text


def tokens_version(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a suffix for the fingerprint of a model whose completions have other tokens now.

    It is empty unless the tokenizer writes a space at the start of a text, which completions had as
    well, or the chat template ends a turn with a token that is not special, or a chat with another
    token than a turn.
    """
    is_changed = marks_start_of_text(tokenizer)
    if tokenizer.chat_template and not is_changed:
        chats = ChatRenderer(tokenizer)
        added = tokenizer.added_tokens_decoder.values()
        special = {*tokenizer.all_special_tokens, *(str(one) for one in added if one.special)}
        is_changed = chats.tokens_at_end_of_chat() != "" or chats.end_token() not in special
    return "+tokens2" if is_changed else ""
