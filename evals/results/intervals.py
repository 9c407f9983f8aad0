"""From per-item outcomes to a score with its uncertainty over items."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from evals.config import Group
from evals.results.scores import Score

NUM_RESAMPLES = 1000
BOOTSTRAP = f"percentile bootstrap over items, {NUM_RESAMPLES} resamples"
WILSON = "Wilson score"
Z_95 = NormalDist().inv_cdf(0.975)

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its standard error and 95% interval over items.

    Items that show no spread (one item, or all alike) say nothing about how large the error is:
    `standard_error` is then None, and so is a bootstrap interval. Wilson's interval still holds.
    """

    value: float
    standard_error: float | None
    ci_low: float | None
    ci_high: float | None
    num_items: int
    interval_method: str

    def as_score(
        self, name: str, *, group: Group | None, higher_is_better: bool, unit: str
    ) -> Score:
        """This estimate as the score of a measure."""
        return Score(
            name=name,
            group=group,
            value=self.value,
            standard_error=self.standard_error,
            ci_low=self.ci_low,
            ci_high=self.ci_high,
            num_items=self.num_items,
            higher_is_better=higher_is_better,
            unit=unit,
            interval_method=self.interval_method,
        )


@dataclass(frozen=True, kw_only=True)
class CorpusScore:
    """chrF or BLEU of a set of outputs, 0 to 100, with that of each and sacrebleu's signature."""

    estimate: Estimate
    sentence_scores: list[float]
    signature: str


def share(outcomes: Sequence[bool]) -> Estimate:
    """The share of true outcomes, in [0, 1], with Wilson's 95% interval.

    The standard error is the sample standard deviation over the root of n.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    n = len(outcomes)
    p = sum(outcomes) / n
    z2 = Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half_width = Z_95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Estimate(
        value=p,
        standard_error=math.sqrt(p * (1 - p) / (n - 1)) if 0 < p < 1 else None,
        ci_low=max(0.0, centre - half_width) if p > 0 else 0.0,
        ci_high=min(1.0, centre + half_width) if p < 1 else 1.0,
        num_items=n,
        interval_method=WILSON,
    )


def ratio(sums: Sequence[float], counts: Sequence[int], seed: int) -> Estimate | None:
    """The sum of `sums` over the sum of `counts`; None if nothing was counted.

    Items are resampled whole, because the tokens of one example depend on each other. Items
    that count nothing are left out.
    """
    counted = [index for index, count in enumerate(counts) if count > 0]
    if not counted:
        return None
    pairs = np.array([(sums[index], counts[index]) for index in counted], dtype=np.float64)
    return _bootstrap(pairs, lambda totals: totals[:, 0] / totals[:, 1], seed)


def chrf(outputs: Sequence[str], targets: Sequence[str], seed: int) -> CorpusScore:
    """Corpus chrF of `outputs`, from the n-gram counts summed over items.

    Source: Popovic 2015 (W15-3049), as sacrebleu computes it: n-grams up to 6, beta 2.
    """
    metric = CHRF()
    statistics = metric._extract_corpus_statistics(outputs, [list(targets)])

    def score(totals: Floats) -> Floats:
        return np.array([metric._compute_f_score(row) for row in totals.tolist()])

    return CorpusScore(
        estimate=_bootstrap(np.array(statistics, dtype=np.float64), score, seed),
        sentence_scores=score(np.array(statistics, dtype=np.float64)).tolist(),
        signature=str(metric.get_signature()),
    )


def bleu(outputs: Sequence[str], targets: Sequence[str], seed: int) -> CorpusScore:
    """Corpus BLEU of `outputs`, from the n-gram counts summed over items.

    Where no output has four words the orders that there are count, instead of a BLEU of 0: short
    completions would have no other. With longer outputs it is BLEU as ever.

    Source: Papineni et al. 2002 (P02-1040), as sacrebleu computes it (effective order).
    """
    metric = BLEU(effective_order=True)
    statistics = metric._extract_corpus_statistics(outputs, [list(targets)])

    def score(totals: Floats) -> Floats:
        # Whole numbers: it raises the counts of a list in place and formats them.
        rows = totals.round().astype(int).tolist()
        return np.array([metric._compute_score_from_stats(row).score for row in rows])

    items = np.array(statistics, dtype=np.float64)
    return CorpusScore(
        estimate=_bootstrap(items, score, seed),
        sentence_scores=score(items).tolist(),
        signature=str(metric.get_signature()),
    )


def mean(values: Sequence[float], seed: int) -> Estimate:
    """The mean of `values`, with its interval over items."""
    estimate = ratio(values, [1] * len(values), seed)
    assert estimate is not None
    return estimate


def corpus_metric(name: str, items: Sequence[tuple[Sequence[str], str]], *, seed: int) -> Estimate:
    """Corpus BLEU, chrF, chrF++ or TER of (targets, output) items, from their summed statistics.

    TER is edits per 100 words of the targets, lower is better, and has no upper bound.
    """
    metric = corpus_metrics()[name]
    statistics = _statistics(metric, items)
    return _bootstrap(statistics, partial(_corpus_scores, metric), seed)


def sentence_scores(name: str, items: Sequence[tuple[Sequence[str], str]]) -> list[float]:
    """The same measure of each item alone."""
    metric = corpus_metrics()[name]
    values: list[float] = _corpus_scores(metric, _statistics(metric, items)).tolist()
    return values


def corpus_metrics() -> dict[str, Any]:
    """sacrebleu's metrics by lm-eval's names, with the settings that lm-eval takes."""
    return {"bleu": BLEU(), "chrf": CHRF(), "chrf++": CHRF(word_order=2), "ter": TER()}


def resampled(
    values: Sequence[Any], aggregate: Callable[[list[Any]], float], seed: int
) -> Estimate:
    """What `aggregate` makes of `values`, with resamples of them around it: for any measure."""
    value = float(aggregate(list(values)))
    generator = np.random.default_rng(seed)
    n = len(values)
    found = []
    for _ in range(NUM_RESAMPLES):
        drawn = generator.integers(n, size=n)
        found.append(float(aggregate([values[index] for index in drawn])))
    return estimate_of(value, np.array(found), n)


def _statistics(metric: Any, items: Sequence[tuple[Sequence[str], str]]) -> Floats:
    most = max(len(targets) for targets, _ in items)
    # sacrebleu takes a list per place in the items' lists of targets; it leaves None out.
    targets = [[of[n] if n < len(of) else None for of, _ in items] for n in range(most)]
    statistics = metric._extract_corpus_statistics([output for _, output in items], targets)
    return np.array(statistics, dtype=np.float64)


def _corpus_scores(metric: Any, totals: Floats) -> Floats:
    rows = totals.tolist() if isinstance(metric, TER) else totals.astype(np.int64).tolist()
    return np.array([metric._compute_score_from_stats(row).score for row in rows])


def resampled_sums(items: Floats, score: Callable[[Floats], Floats], seed: int) -> Floats:
    """The `score` of the summed rows of each of `NUM_RESAMPLES` resamples of `items` (n, k).

    `score` maps sums (m, k) to values (m,).
    """
    return score(resample_counts(len(items), seed) @ items)


def resample_counts(num_items: int, seed: int) -> Floats:
    """How often each of `NUM_RESAMPLES` resamples draws each item: (m, n).

    Rather than which items: sums become one matrix product.
    """
    shares = np.full(num_items, 1 / num_items)
    draws = np.random.default_rng(seed).multinomial(num_items, shares, size=NUM_RESAMPLES)
    return draws.astype(np.float64)


def _bootstrap(items: Floats, score: Callable[[Floats], Floats], seed: int) -> Estimate:
    """The `score` of the summed `items` (n, k), with resamples of its rows around it.

    `score` maps sums (m, k) to values (m,).
    """
    value = float(score(items.sum(axis=0, keepdims=True))[0])
    return estimate_of(value, resampled_sums(items, score, seed), len(items))


def estimate_of(
    value: float, resampled_values: Floats, num_items: int, *, method: str = BOOTSTRAP
) -> Estimate:
    """A value of `num_items` with what the same of their resamples say."""
    # Sums in another order differ in their last bits: that is no spread.
    spread = float(np.ptp(resampled_values)) > 1e-9 * max(1.0, abs(value))
    low, high = np.quantile(resampled_values, [0.025, 0.975]).tolist()
    return Estimate(
        value=value,
        standard_error=float(resampled_values.std(ddof=1)) if spread else None,
        ci_low=low if spread else None,
        ci_high=high if spread else None,
        num_items=num_items,
        interval_method=method,
    )
