"""Count what templates, weights and data.max_length did to the examples of a data set."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from trainers.foundation.counts import format_count


@dataclass(frozen=True, kw_only=True)
class EncodingCounts:
    """The number of examples, and what was lost of them.

    A truncated example lost tokens: whole turns (`num_removed_turns` counts messages), parts of the
    texts in its prompt, or the end of its completion with its end-of-sequence token.
    `num_dropped_examples` were dropped by data.too_long, `num_dropped_completions` because they
    would have lost the end of their completion; neither are in `num_examples`.
    `num_dropped_tokens` are the tokens of both. `num_zero_weight_turns` counts turns to which the
    data gives weight 0. `num_chats_without_thinking` counts examples whose prompt leaves out the
    thinking of an earlier turn, as at inference. `num_chats_without_names` counts examples with a
    turn whose `name` the template does not show. `num_tokenised_examples` were tokens in the data.
    """

    num_examples: int
    num_truncated_examples: int = 0
    num_truncated_tokens: int = 0
    num_removed_turns: int = 0
    num_cut_prompts: int = 0
    num_cut_completions: int = 0
    num_dropped_examples: int = 0
    num_dropped_completions: int = 0
    num_dropped_tokens: int = 0
    num_zero_weight_turns: int = 0
    num_chats_without_thinking: int = 0
    num_chats_without_names: int = 0
    num_tokenised_examples: int = 0

    def __add__(self, other: "EncodingCounts") -> "EncodingCounts":
        names = [field.name for field in fields(self)]
        return EncodingCounts(
            **{name: getattr(self, name) + getattr(other, name) for name in names}
        )

    def lines(self, max_length: int) -> Iterator[str]:
        """Yield the counts as lines of text; `max_length` is the limit in tokens."""
        num_dropped = self.num_dropped_examples + self.num_dropped_completions
        total = format_count(self.num_examples, "example")
        if self.num_truncated_examples or num_dropped:
            yield total
        else:
            yield f"{total}, none longer than {max_length} tokens"
        if self.num_truncated_examples:
            tokens = f"{format_count(self.num_truncated_tokens, 'token')} removed"
            lost = ", ".join([tokens, *self._cuts()])
            count = format_count(self.num_truncated_examples, "example")
            yield f"truncated to {max_length} tokens: {count} ({lost})"
        if num_dropped:
            tokens = format_count(self.num_dropped_tokens, "token")
            yield f"dropped: {', '.join(self._drops(max_length))} ({tokens})"
        if self.num_zero_weight_turns:
            yield f"weight 0 in the data: {format_count(self.num_zero_weight_turns, 'turn')}"
        if self.num_chats_without_thinking:
            count = format_count(self.num_chats_without_thinking, "example")
            yield f"prompts without the thinking of earlier turns, as at inference: {count}"
        if self.num_chats_without_names:
            count = format_count(self.num_chats_without_names, "example")
            yield f"ignored because the template does not show it: name of a message ({count})"

    def _cuts(self) -> Iterator[str]:
        if self.num_removed_turns:
            yield f"{format_count(self.num_removed_turns, 'turn')} removed"
        if self.num_cut_prompts:
            yield f"{format_count(self.num_cut_prompts, 'prompt')} cut"
        if self.num_cut_completions:
            yield f"{format_count(self.num_cut_completions, 'completion')} without end token"

    def _drops(self, max_length: int) -> Iterator[str]:
        if self.num_dropped_examples:
            count = format_count(self.num_dropped_examples, "example")
            yield f"{count} longer than {max_length} tokens"
        if self.num_dropped_completions:
            count = format_count(self.num_dropped_completions, "example")
            yield f"{count} whose completion does not end within {max_length} tokens"
