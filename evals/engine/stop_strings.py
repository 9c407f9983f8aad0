"""Find stop strings in outputs that are being generated."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase


class StopStrings:
    """Searches the ends of outputs for stop strings.

    Only the last tokens are searched: slightly more tokens than the longest stop string has,
    because its text may be tokenised differently.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_strings: Sequence[str]) -> None:
        self._tokenizer: Any = tokenizer
        self._stop_strings = list(stop_strings)
        self._num_searched_tokens = 0
        if stop_strings:
            encoded = self._tokenizer(self._stop_strings, add_special_tokens=False)["input_ids"]
            self._num_searched_tokens = max(map(len, encoded)) + 2

    def __bool__(self) -> bool:
        return bool(self._stop_strings)

    def end(self, outputs: Sequence[Sequence[int]]) -> list[bool]:
        """Return for each output (token ids) whether its last tokens contain a stop string."""
        # batch_decode returns one text for an empty list of rows.
        if not self._stop_strings or not outputs:
            return [False] * len(outputs)
        tails = [list(output[-self._num_searched_tokens :]) for output in outputs]
        texts = self._tokenizer.batch_decode(tails)
        return [any(stop in text for stop in self._stop_strings) for text in texts]
