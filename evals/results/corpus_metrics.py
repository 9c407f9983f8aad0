"""Corpus metrics of sacrebleu (BLEU, chrF, TER) with bootstrap intervals over items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from evals.results.intervals import Estimate, Floats, bootstrap

Item = tuple[Sequence[str], str]
"""The targets and the output of one item."""

CORPUS_METRICS: dict[str, Callable[[], Any]] = {
    "bleu": BLEU,
    # Effective order ignores the n-gram orders that no output has. Otherwise, corpora of outputs
    # below four words would have a BLEU of 0. Longer outputs have the usual BLEU.
    "bleu_effective_order": partial(BLEU, effective_order=True),
    "chrf": CHRF,
    "chrf++": partial(CHRF, word_order=2),
    "ter": TER,
}
"""sacrebleu's metrics by lm-eval's names, with lm-eval's settings, and a BLEU for short outputs.

BLEU and chrF are in [0, 100]. TER is edits per 100 words of the targets: lower is better, without
an upper bound.

Source: Papineni et al. 2002 (P02-1040), Popovic 2015 (W15-3049, n-grams up to 6, beta 2).
"""


@dataclass(frozen=True, kw_only=True)
class CorpusScore:
    """A metric of all outputs together and of each output, and sacrebleu's signature."""

    estimate: Estimate
    sentence_scores: list[float]
    signature: str


def corpus_score(name: str, items: Sequence[Item], *, seed: int) -> CorpusScore:
    """Return a metric of `CORPUS_METRICS`, computed from the summed statistics of `items`."""
    adapter = CorpusStatistics(name)
    statistics = adapter.statistics(items)
    return CorpusScore(
        estimate=bootstrap(statistics, adapter.scores, seed),
        sentence_scores=adapter.scores(statistics).tolist(),
        signature=str(adapter.metric.get_signature()),
    )


def corpus_value(name: str, items: Sequence[Item]) -> float:
    """Return the metric of all `items` together, without an interval."""
    adapter = CorpusStatistics(name)
    totals = adapter.statistics(items).sum(axis=0, keepdims=True)
    return float(adapter.scores(totals)[0])


class CorpusStatistics:
    """Statistics of items and their scores for a metric of `CORPUS_METRICS`.

    They are private functions of sacrebleu, because the bootstrap sums the statistics of items, but
    the public functions only return the score of a corpus.
    """

    def __init__(self, name: str) -> None:
        self.metric = CORPUS_METRICS[name]()

    def statistics(self, items: Sequence[Item]) -> Floats:
        """Return the statistics of each item, such as n-gram counts: (n, k)."""
        max_targets = max(len(targets) for targets, _ in items)
        # sacrebleu expects one list per position in the items' lists of targets, and skips None.
        references = [
            [targets[n] if n < len(targets) else None for targets, _ in items]
            for n in range(max_targets)
        ]
        outputs = [output for _, output in items]
        return np.array(
            self.metric._extract_corpus_statistics(outputs, references), dtype=np.float64
        )

    def scores(self, totals: Floats) -> Floats:
        """Return the metric (m,) of summed statistics (m, k)."""
        # BLEU formats its counts and therefore needs integers. TER averages the lengths of targets.
        rows = totals if isinstance(self.metric, TER) else totals.round().astype(np.int64)
        return np.array([self.metric._compute_score_from_stats(r).score for r in rows.tolist()])
