"""Write warnings about truncated and dropped training examples."""

from collections.abc import Iterator, Mapping
from typing import Any

from trainers.foundation.counts import format_count

# Smaller shares of truncated examples do not change findings.
TOLERATED_SHARE = 0.05


def truncation_warnings(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence each on truncated examples, cut completions and dropped examples.

    `data` is an entry of a plan or a sweep's record, with `trainers.data.length_stats.DataStats`
    under `stats`. Missing counts give no warning.
    """
    stats = data.get("stats") or {}
    kept = stats.get("num_examples") or 0
    limit = stats.get("max_length")
    truncated = stats.get("num_truncated_examples") or 0
    if kept and truncated / kept > TOLERATED_SHARE:
        yield (
            f"{truncated / kept:.0%} of the training examples ({truncated:,} of {kept:,}) were "
            f"truncated to {limit} tokens ({stats.get('num_truncated_tokens') or 0:,} tokens "
            "lost). R_g and all findings describe the truncated data. Raise data.max_length to "
            "keep them whole."
        )
    cut = stats.get("num_cut_completions") or 0
    if cut:
        yield (
            f"{_examples(cut)} lost the end of the completion with its end-of-sequence token and "
            f"{'does' if cut == 1 else 'do'} not teach the model where to stop."
        )
    too_long = stats.get("num_dropped_examples") or 0
    without_end = stats.get("num_dropped_completions") or 0
    total = f"of {kept + too_long + without_end:,}"
    if too_long:
        yield (
            f"{_examples(too_long)} {total} had more than {limit} tokens and "
            f"{_was(too_long)} dropped."
        )
    if without_end:
        yield (
            f"{_examples(without_end)} {total} {_was(without_end)} dropped because "
            f"{'its completion' if without_end == 1 else 'their completions'} would have lost the "
            f"end within {limit} tokens."
        )


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _examples(count: int) -> str:
    return format_count(count, "training example")
