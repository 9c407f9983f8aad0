"""Compute the findings of a sweep from its records: scores, conclusions and panels.

The functions convert records and score cards to findings that serialize to JSON. They do not draw,
write or train. All statistics of PLW are in `orchestrator.statistics`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from evals.config import Group, PaperGroup
from evals.results.scores import ScoreCard
from orchestrator.analysis.costs import compute_cost
from orchestrator.analysis.findings import FailedTrial, Findings, Panel, TrialCounts
from orchestrator.analysis.observations import other_settings
from orchestrator.analysis.panels import benchmark_panels, mechanism_panels, verdict_panels
from orchestrator.analysis.regularisers import compare_regularisers
from orchestrator.analysis.weight_maps import weight_maps
from orchestrator.record.baselines import BaselineRecord, baseline_labels
from orchestrator.record.folder import SweepFolder, SweepRecord, TrialRecord
from orchestrator.statistics.aggregates import to_points
from orchestrator.statistics.conclusions import Conclusions, draw_joint_conclusions
from orchestrator.statistics.from_records import benchmark_rows, loss_rows, untuned_rows
from orchestrator.statistics.study import Table
from orchestrator.statistics.table import ScoreRow

GROUPS: tuple[Group, ...] = get_args(Group)
# A difference of 0.01 nats changes perplexity by 1%.
LOSS_MARGIN_NATS = 0.01
LOSS_UNIT = "nats per token"
# Part of the error message of a training run whose loss or gradient diverged.
DIVERGED = "not finite"


def read_findings(folder: SweepFolder) -> Findings:
    """Return the findings of the sweep in `folder`, which may still be running."""
    trials = folder.read_trials()
    sweep = folder.read_sweep()
    cards = {trial.id: folder.read_scores(trial.id) for trial in trials}
    untuned = {base.key: folder.read_baseline_scores(base.key) for base in sweep.bases}
    return analyse(
        sweep,
        trials,
        {trial_id: card for trial_id, card in cards.items() if card is not None},
        {key: card for key, card in untuned.items() if card is not None},
    )


def analyse(
    sweep: SweepRecord,
    trials: Sequence[TrialRecord],
    cards: Mapping[str, ScoreCard],
    untuned: Mapping[str, ScoreCard],
) -> Findings:
    """Return the findings from the done trials with scores; other trials are only counted.

    Args:
        untuned: scores of the untuned models, by base key.
    """
    scored = [trial for trial in trials if trial.state == "done" and trial.id in cards]
    shares = benchmark_rows(sweep, scored, cards)
    losses = loss_rows(sweep, scored, cards)
    scores_answer, loss_answer = _conclusions(shares, losses)
    labels = baseline_labels(sweep.bases)
    implied = {
        base.key: _implied_settings(base, scored) if labels[base.key] else ()
        for base in sweep.bases
    }
    panels = _panels(
        sweep, scored, untuned, (scores_answer, shares), (loss_answer, losses), implied
    )
    mechanism, not_recorded = mechanism_panels(scored, cards, labels, implied)
    present = {row.group for row in shares}
    return Findings(
        sweep=sweep.name,
        scores=scores_answer,
        losses=loss_answer,
        panels=[*panels, *mechanism],
        plws=sorted({trial.prompt_loss_weight for trial in scored}),
        varied=_varied(scored, implied),
        regularisers=compare_regularisers(panels[0], labels) if panels else [],
        weight_maps=weight_maps(panels[0], scored, labels) if panels else [],
        not_recorded=not_recorded if scored else [],
        unused_scores=_unused(scored, cards),
        cost=compute_cost(sweep, trials),
        groups_not_measured=[group for group in get_args(PaperGroup) if group not in present],
        trials=_counts(sweep, trials, scored),
        generation_ratio=_generation_ratio(sweep.bases),
        normalizations=sorted({str(trial.settings["loss"]["normalization"]) for trial in trials}),
        single_seed=any(len(point.seeds) == 1 for panel in panels[:1] for point in panel.points),
        is_demo=any(_is_demo(trial) for trial in trials),
        lost=[_failed_trial(trial) for trial in trials if trial.state == "failed"],
    )


def _failed_trial(trial: TrialRecord) -> FailedTrial:
    return FailedTrial(
        id=trial.id,
        prompt_loss_weight=trial.prompt_loss_weight,
        seed=trial.settings.get("seed"),
        is_diverged=DIVERGED in (trial.error or ""),
    )


def _conclusions(
    shares: Sequence[ScoreRow], losses: Sequence[ScoreRow]
) -> tuple[Conclusions | None, Conclusions | None]:
    """Return the conclusions on benchmarks and on held-out losses, with joint correction."""
    tables = []
    if shares:
        tables.append(Table(rows=shares))
    if losses:
        tables.append(
            Table(
                rows=losses,
                shares=False,
                higher_is_better=False,
                margin=LOSS_MARGIN_NATS,
                unit=LOSS_UNIT,
            )
        )
    found = draw_joint_conclusions(tables)
    return (found[0] if shares else None), (found[-1] if losses else None)


def _panels(
    sweep: SweepRecord,
    scored: Sequence[TrialRecord],
    untuned: Mapping[str, ScoreCard],
    shares: tuple[Conclusions | None, Sequence[ScoreRow]],
    losses: tuple[Conclusions | None, Sequence[ScoreRow]],
    implied: Mapping[str, Sequence[str]],
) -> list[Panel]:
    """Return panels: overall, groups, held-out loss, then benchmarks of groups with several."""
    by_id = {trial.id: trial for trial in scored}
    key = sweep.bases[0].key if len(sweep.bases) == 1 else None
    card = untuned.get(key) if key is not None else None
    panels: list[Panel] = []
    for (found, rows), is_loss in ((shares, False), (losses, True)):
        if found is not None:
            reference = untuned_rows(key or "", card, losses=is_loss) if card else None
            panels += verdict_panels(found, rows, by_id, reference, implied)
    reference = untuned_rows(key or "", card, losses=False) if card else None
    return [*panels, *benchmark_panels(shares[1], by_id, reference, implied)]


def _counts(
    sweep: SweepRecord, trials: Sequence[TrialRecord], scored: Sequence[TrialRecord]
) -> TrialCounts:
    done = sum(trial.state == "done" for trial in trials)
    failed = sum(trial.state == "failed" for trial in trials)
    stopped = sum(trial.state == "stopped" for trial in trials)
    planned = sweep.num_planned
    return TrialCounts(
        planned=planned,
        done=done,
        failed=failed,
        stopped=stopped,
        unfinished=planned - done - failed - stopped,
        scored=len(scored),
    )


def _implied_settings(base: BaselineRecord, trials: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Return the searched settings of model and data that are the same in all trials of a base."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        if trial.base == base.key:
            for key, value in trial.searched.items():
                values.setdefault(key, set()).add(str(value))
    return tuple(
        key
        for key, found in values.items()
        if len(found) == 1 and key.startswith(("model.", "data."))
    )


def _varied(trials: Sequence[TrialRecord], implied: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the searched settings other than PLW and seed with several values in a base."""
    values: dict[tuple[str, str], set[str]] = {}
    for trial in trials:
        for key, value in other_settings(trial, implied.get(trial.base, ())).items():
            values.setdefault((trial.base, key), set()).add(str(value))
    return sorted({key for (_, key), found in values.items() if len(found) > 1})


def _unused(trials: Sequence[TrialRecord], cards: Mapping[str, ScoreCard]) -> list[str]:
    """Return names and units of benchmarks whose unit has no bounds, such as perplexity."""
    return sorted(
        {
            f"{score.name} ({score.unit})"
            for trial in trials
            for score in cards[trial.id].scores
            if score.group is not None and to_points(score) is None
        }
    )


def _generation_ratio(bases: Sequence[BaselineRecord]) -> float | None:
    """Return R_g of the training data; None if trials have different data."""
    ratios = {generation_ratio(data) for base in bases for data in base.data}
    return ratios.pop() if len(ratios) == 1 else None


def generation_ratio(data: Mapping[str, Any]) -> float | None:
    """Return R_g of training data in a base record: mean completion over mean prompt length."""
    ratio = data.get("stats", data).get("generation_ratio")
    if isinstance(ratio, Mapping):
        ratio = ratio.get("of_means")
    return float(ratio) if isinstance(ratio, int | float) else None


def _is_demo(trial: TrialRecord) -> bool:
    model, data = (trial.settings.get(name) or {} for name in ("model", "data"))
    sections = (model, data, *data.get("sources", ()))
    return any(str(section.get("path", "")).startswith("demo:") for section in sections)
