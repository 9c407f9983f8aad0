"""What a reader must know of training examples that were too long."""

from collections.abc import Iterator, Mapping
from typing import Any

# A few long examples change no finding; more of them make it one on other data.
TOLERATED_SHARE = 0.05


def cut_data(data: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each way in which the training data is not what was given.

    `data` is that of a plan or a sweep's record, with `trainers.data.length_stats.DataStats` under
    `stats`; counts that a record lacks say nothing.
    """
    stats = data.get("stats") or {}
    kept = stats.get("num_examples") or 0
    limit = stats.get("max_length")
    truncated = stats.get("num_truncated_examples") or 0
    if kept and truncated / kept > TOLERATED_SHARE:
        yield (
            f"{truncated / kept:.0%} of the training examples ({truncated:,} of {kept:,}) were cut "
            f"to {limit} tokens, which lost {stats.get('num_truncated_tokens') or 0:,} tokens: R_g "
            "and all findings are those of the cut data. Raise data.max_length to keep them whole."
        )
    cut = stats.get("num_cut_completions") or 0
    if cut:
        yield (
            f"{_examples(cut)} lost the end of the completion with its end-of-sequence token: "
            "nothing there teaches where to stop."
        )
    dropped = stats.get("num_dropped_examples") or 0
    if dropped:
        yield (
            f"{_examples(dropped)} of {kept + dropped:,} had more than {limit} tokens and "
            f"{'was' if dropped == 1 else 'were'} dropped, with "
            f"{stats.get('num_dropped_tokens') or 0:,} tokens."
        )


def _examples(count: int) -> str:
    return f"{count:,} training example{'' if count == 1 else 's'}"
