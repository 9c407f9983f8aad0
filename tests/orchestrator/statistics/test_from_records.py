"""Rows of scores from a sweep's records."""

import pytest

from orchestrator.statistics.conclusions import draw_conclusions
from orchestrator.statistics.from_records import benchmark_rows, loss_rows
from tests.orchestrator.sweeps import DEMO, base_record, card, sweep_record, trial

TRIALS = [trial(plw, seed=seed) for plw in DEMO for seed in (0, 1)]
CARDS = {each.id: card(DEMO[each.prompt_loss_weight]) for each in TRIALS}
SWEEP = sweep_record([each.id for each in TRIALS])


def test_scores_become_shares_and_losses_stay_in_nats() -> None:
    rows = benchmark_rows(SWEEP, TRIALS, CARDS)
    assert len(rows) == 3 * len(TRIALS)
    first = {row.group: row for row in rows if row.plw == 0 and row.seed == "0"}
    assert first["multiple_choice"].score == 0.75
    assert first["long_generation"].score == pytest.approx(0.241)
    assert first["long_generation"].standard_error == pytest.approx(0.0005)
    assert first["multiple_choice"].learning_rate == 1e-4
    losses = loss_rows(SWEEP, TRIALS, CARDS)
    assert {row.benchmark for row in losses} == {"heldout_completion_loss"}
    assert losses[0].score == 2.031


def test_failed_and_unscored_trials_are_ignored() -> None:
    failed = [trial(0.5, state="failed"), trial(0.7)]
    assert len(benchmark_rows(SWEEP, [*TRIALS, *failed], CARDS)) == 3 * len(TRIALS)


def test_cells_depend_on_settings_but_not_on_learning_rates() -> None:
    searched = [
        trial(plw, searched={"loss.normalization": mode, "optimizer.learning_rate": rate})
        for plw in DEMO
        for mode in ("weights", "tokens")
        for rate in (1e-5, 1e-4)
    ]
    cards = {each.id: card(DEMO[each.prompt_loss_weight]) for each in searched}
    rows = benchmark_rows(SWEEP, searched, cards)
    assert {row.condition for row in rows} == {
        "loss.normalization weights", "loss.normalization tokens",
    }  # fmt: skip


def test_a_cell_shows_a_whole_number_without_a_decimal_point() -> None:
    weights = [trial(0.1, searched={"loss.role_weights.tool": weight}) for weight in (0.0, 0.5)]
    rows = benchmark_rows(SWEEP, weights, {each.id: card(DEMO[0.1]) for each in weights})
    assert {row.condition for row in rows} == {
        "loss.role_weights.tool 0", "loss.role_weights.tool 0.5",
    }  # fmt: skip


def test_cells_depend_on_bases() -> None:
    two = sweep_record([], bases=[base_record(), base_record("1b", data="demo:python-docs-long")])
    other = trial(0.1, base="1b", seed=5)
    rows = benchmark_rows(two, [*TRIALS, other], {**CARDS, other.id: card(DEMO[0.1])})
    assert {row.model for row in rows} == {
        "data demo:python-docs-short", "data demo:python-docs-long",
    }  # fmt: skip


def test_rows_of_a_sweep_give_conclusions() -> None:
    found = draw_conclusions(benchmark_rows(SWEEP, TRIALS, CARDS))
    assert found.verdicts[0].group == "overall"
    losses = draw_conclusions(loss_rows(SWEEP, TRIALS, CARDS), shares=False, higher_is_better=False,
                    margin=0.01)  # fmt: skip
    assert losses.verdicts[0].best_plw is not None
    assert losses.verdicts[0].best_plw < 0.1
