"""Corpus metrics against the public functions of sacrebleu."""

from collections.abc import Sequence

import pytest
import sacrebleu

from evals.results.corpus_metrics import CorpusScore, corpus_score, corpus_value

OUTPUTS = ["the cat sat", "", "a completely different thing", "os.path.join", "x"]
TARGETS = ["the cat sat on the mat", "a dog", "nothing alike", "os.path.join", "y"]


def _score(name: str, outputs: Sequence[str], targets: Sequence[str]) -> CorpusScore:
    items = [([target], output) for output, target in zip(outputs, targets, strict=True)]
    assert corpus_value(name, items) == corpus_score(name, items, seed=0).estimate.value
    return corpus_score(name, items, seed=0)


def test_chrf_equals_that_of_sacrebleu() -> None:
    result = _score("chrf", OUTPUTS, TARGETS)
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
    assert _score("chrf", OUTPUTS, TARGETS) == result


def test_chrf_of_one_item_has_no_interval() -> None:
    estimate = _score("chrf", ["the cat"], ["the dog"]).estimate
    assert estimate.value > 0
    assert (estimate.standard_error, estimate.ci_low, estimate.ci_high) == (None, None, None)


def test_chrf_of_outputs_that_share_nothing_is_zero() -> None:
    result = _score("chrf", ["", "x"], ["abc", "def"])
    assert result.estimate.value == 0
    assert result.sentence_scores == [0, 0]
    assert result.estimate.standard_error is None


def test_bleu_equals_that_of_sacrebleu() -> None:
    outputs = ["the cat sat on the mat today", "a dog", "", "os.path.join"]
    targets = ["the cat sat on the mat", "a dog barks loudly", "x", "os.path.join"]
    result = _score("bleu_effective_order", outputs, targets)
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
    assert _score("bleu_effective_order", outputs, targets) == result


def test_bleu_of_short_outputs_counts_only_the_orders_that_exist() -> None:
    assert _score(
        "bleu_effective_order", ["Paris", "Rome"], ["Paris", "Rome"]
    ).estimate.value == pytest.approx(100)
    assert _score(
        "bleu_effective_order", ["Paris", "Rome"], ["Paris", "Oslo"]
    ).estimate.value == pytest.approx(50)
    nothing = _score("bleu_effective_order", ["", ""], ["Paris", "Oslo"])
    assert (nothing.estimate.value, nothing.sentence_scores) == (0, [0, 0])


def test_items_may_have_different_numbers_of_targets() -> None:
    items = [(["a red dog", "one dog"], "a red dog"), (["the cat"], "the cat sat")]
    expected = sacrebleu.corpus_ter(
        ["a red dog", "the cat sat"], [["a red dog", "the cat"], ["one dog", None]]
    )
    assert corpus_value("ter", items) == pytest.approx(expected.score)
