import pytest
import sacrebleu
from scipy.stats import binomtest

from evals.results.intervals import bleu, chrf, mean, ratio, share

OUTPUTS = ["the cat sat", "", "a completely different thing", "os.path.join", "x"]
TARGETS = ["the cat sat on the mat", "a dog", "nothing alike", "os.path.join", "y"]


@pytest.mark.parametrize(("right", "count"), [(0, 5), (5, 5), (3, 7), (1, 1), (40, 64)])
def test_the_interval_of_a_share_is_wilsons(right: int, count: int) -> None:
    estimate = share([True] * right + [False] * (count - right))
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert estimate.value == right / count
    assert estimate.ci_low == pytest.approx(expected.low, abs=1e-12)
    assert estimate.ci_high == pytest.approx(expected.high, abs=1e-12)
    assert estimate.num_items == count
    assert estimate.interval_method == "Wilson score"


def test_the_standard_error_of_a_share() -> None:
    # Sample variance of 3 ones and 1 zero is 0.25; over 4 items, the root is 0.25.
    assert share([True, True, True, False]).standard_error == 0.25


@pytest.mark.parametrize("outcomes", [[True], [False], [True] * 9, [False] * 9])
def test_items_without_spread_have_no_standard_error(outcomes: list[bool]) -> None:
    estimate = share(outcomes)
    assert estimate.standard_error is None
    assert estimate.ci_high is not None
    assert estimate.ci_low is not None
    assert estimate.ci_high - estimate.ci_low > 0.2


def test_a_ratio_divides_sum_by_sum() -> None:
    estimate = ratio([10.0, 2.0, 0.0], [1, 3, 0], seed=0)
    assert estimate is not None
    assert estimate.value == 3.0
    # The example that counts nothing is no item.
    assert estimate.num_items == 2
    # Draws: both of the first (10), one of each (3), both of the second (2/3).
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((2 / 3, 10))


def test_a_ratio_of_nothing_is_undefined() -> None:
    assert ratio([0.0, 0.0], [0, 0], seed=0) is None


@pytest.mark.parametrize(("sums", "counts"), [([6.0], [3]), ([2.0, 4.0, 6.0], [1, 2, 3])])
def test_a_ratio_without_spread_has_no_interval(sums: list[float], counts: list[int]) -> None:
    estimate = ratio(sums, counts, seed=0)
    assert estimate is not None
    assert estimate.value == 2.0
    assert (estimate.standard_error, estimate.ci_low, estimate.ci_high) == (None, None, None)


def test_the_bootstrap_agrees_with_theory_and_follows_its_seed() -> None:
    # Equal counts make the ratio a mean, whose standard error is known: 1 / sqrt(400).
    sums = [-1.0, 1.0] * 200
    estimate = ratio(sums, [1] * 400, seed=0)
    assert estimate is not None
    assert estimate.standard_error == pytest.approx(0.05, rel=0.1)
    assert estimate.ci_low == pytest.approx(-0.098, abs=0.02)
    assert estimate.ci_high == pytest.approx(0.098, abs=0.02)
    assert ratio(sums, [1] * 400, seed=0) == estimate
    assert ratio(sums, [1] * 400, seed=1) != estimate


def test_chrf_is_sacrebleus() -> None:
    result = chrf(OUTPUTS, TARGETS, seed=0)
    expected = sacrebleu.corpus_chrf(OUTPUTS, [TARGETS])
    assert result.estimate.value == pytest.approx(expected.score, abs=1e-9)
    assert result.sentence_scores == pytest.approx(
        [
            sacrebleu.sentence_chrf(output, [target]).score
            for output, target in zip(OUTPUTS, TARGETS, strict=True)
        ]
    )
    assert result.sentence_scores[3] == 100
    assert result.estimate.ci_low < expected.score < result.estimate.ci_high
    assert result.signature == (
        f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{sacrebleu.__version__}"
    )
    assert chrf(OUTPUTS, TARGETS, seed=0) == result


def test_chrf_of_one_item_has_no_interval() -> None:
    estimate = chrf(["the cat"], ["the dog"], seed=0).estimate
    assert estimate.value > 0
    assert (estimate.standard_error, estimate.ci_low, estimate.ci_high) == (None, None, None)


def test_chrf_of_outputs_that_share_nothing_is_zero() -> None:
    result = chrf(["", "x"], ["abc", "def"], seed=0)
    assert result.estimate.value == 0
    assert result.sentence_scores == [0, 0]
    assert result.estimate.standard_error is None


def test_bleu_is_sacrebleus() -> None:
    outputs = ["the cat sat on the mat today", "a dog", "", "os.path.join"]
    targets = ["the cat sat on the mat", "a dog barks loudly", "x", "os.path.join"]
    result = bleu(outputs, targets, seed=0)
    expected = sacrebleu.corpus_bleu(outputs, [targets])
    assert result.estimate.value == pytest.approx(expected.score, abs=1e-9)
    assert result.estimate.ci_low < expected.score < result.estimate.ci_high
    assert result.sentence_scores == pytest.approx(
        [
            sacrebleu.sentence_bleu(output, [target]).score
            for output, target in zip(outputs, targets, strict=True)
        ]
    )
    assert result.signature == (
        f"nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    )
    assert bleu(outputs, targets, seed=0) == result


def test_bleu_of_short_outputs_counts_the_orders_that_there_are() -> None:
    assert bleu(["Paris", "Rome"], ["Paris", "Rome"], seed=0).estimate.value == pytest.approx(100)
    assert bleu(["Paris", "Rome"], ["Paris", "Oslo"], seed=0).estimate.value == pytest.approx(50)
    nothing = bleu(["", ""], ["Paris", "Oslo"], seed=0)
    assert (nothing.estimate.value, nothing.sentence_scores) == (0, [0, 0])


def test_a_mean_has_its_standard_error() -> None:
    estimate = mean([-1.0, 1.0] * 200, seed=0)
    assert (estimate.value, estimate.num_items) == (0, 400)
    assert estimate.standard_error == pytest.approx(0.05, rel=0.1)
    assert mean([3.0], seed=0).standard_error is None
