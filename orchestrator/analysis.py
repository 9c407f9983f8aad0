"""What a sweep found: the scores over PLW, and whether any PLW stands out.

Pure functions from the records and score cards on disk to findings that dump to JSON. Nothing
here draws, writes or trains.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from evals.config import Group
from evals.scores import Score, ScoreCard
from orchestrator.bases import BaseRecord, base_labels
from orchestrator.findings import (
    Estimate,
    Findings,
    Measure,
    Point,
    TrialCounts,
    format_value,
    w_p,
)
from orchestrator.record import SweepFolder, SweepRecord, TrialRecord

CONFIDENCE = 0.95
GROUPS: tuple[Group, ...] = get_args(Group)
MAX_PLWS_NAMED = 4


def read_findings(folder: SweepFolder) -> Findings:
    """The findings of the sweep in `folder`, finished or not."""
    trials = folder.read_trials()
    sweep = folder.read_sweep()
    cards = {trial.id: folder.read_scores(trial.id) for trial in trials}
    untuned = {base.key: folder.read_base_scores(base.key) for base in sweep.bases}
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
    """The findings from trials that are done and have a card; the others are only counted.

    Args:
        untuned: the scores of the untuned models, by the keys of their bases.
    """
    scored = [trial for trial in trials if trial.state == "done" and trial.id in cards]
    labels = base_labels(sweep.bases)
    measures = [
        measure
        for base in sweep.bases
        for measure in _measures(base, labels[base.key], scored, cards, untuned.get(base.key))
    ]
    present = {measure.group for measure in measures}
    done = sum(trial.state == "done" for trial in trials)
    failed = sum(trial.state == "failed" for trial in trials)
    stopped = sum(trial.state == "stopped" for trial in trials)
    planned = len(sweep.trial_ids)
    return Findings(
        sweep=sweep.name,
        measures=measures,
        groups_not_measured=[group for group in GROUPS if group not in present],
        trials=TrialCounts(
            planned=planned,
            done=done,
            failed=failed,
            stopped=stopped,
            unfinished=planned - done - failed - stopped,
            scored=len(scored),
        ),
        generation_ratio=_generation_ratio(sweep.bases),
        normalizations=sorted({str(trial.settings["loss"]["normalization"]) for trial in trials}),
        single_seed=any(measure.single_seed for measure in measures),
        is_demo=any(_is_demo(trial) for trial in trials),
    )


def is_heldout_completion_loss(score: Score) -> bool:
    """Whether `score` is the loss that may select a PLW; the prompt's loss may not."""
    return score.group is None and score.name == "heldout_completion_loss"


def _generation_ratio(bases: Sequence[BaseRecord]) -> float | None:
    """R_g of the training data; None where trials have different ones."""
    ratios = {generation_ratio(data) for base in bases for data in base.data}
    return ratios.pop() if len(ratios) == 1 else None


def generation_ratio(data: Mapping[str, Any]) -> float | None:
    """R_g of training data as a base records it: mean completion over mean prompt length."""
    ratio = data.get("stats", data).get("generation_ratio")
    if isinstance(ratio, Mapping):
        ratio = ratio.get("of_means")
    return float(ratio) if isinstance(ratio, int | float) else None


def _measures_present(cards: Sequence[ScoreCard]) -> list[Score]:
    """One score of each measure that can select a PLW: groups first, then the held-out loss."""
    first: dict[str, Score] = {}
    for card in cards:
        for score in card.scores:
            first.setdefault(score.name, score)
    ordered = [score for group in GROUPS for score in first.values() if score.group == group]
    return ordered + [score for score in first.values() if is_heldout_completion_loss(score)]


def _measures(
    base: BaseRecord,
    label: str,
    trials: Sequence[TrialRecord],
    cards: Mapping[str, ScoreCard],
    untuned: ScoreCard | None,
) -> list[Measure]:
    """What the trials of one base say; `label` is empty where it is the only one."""
    own = [trial for trial in trials if trial.base == base.key]
    heads = _measures_present([cards[trial.id] for trial in own])
    references = untuned.by_name() if untuned else {}
    told = _told_by_base(own) if label else set()
    found = [_measure(head, own, cards, references.get(head.name), told) for head in heads]
    if not label:
        return found
    return [
        measure.model_copy(
            update={
                "id": f"{measure.name}-{base.key}",
                "title": f"{measure.title} ({label})",
                "phrase": f"{measure.phrase} of {label}",
            }
        )
        for measure in found
    ]


def _told_by_base(trials: Sequence[TrialRecord]) -> set[str]:
    """The searched settings of model and data that are the same in all trials of a base."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for key, value in trial.searched.items():
            values.setdefault(key, set()).add(str(value))
    return {
        key
        for key, found in values.items()
        if len(found) == 1 and key.startswith(("model.", "data."))
    }


def _measure(
    head: Score,
    trials: Sequence[TrialRecord],
    cards: Mapping[str, ScoreCard],
    untuned: Score | None,
    told: Collection[str],
) -> Measure:
    pools: dict[str, list[tuple[TrialRecord, Score]]] = {}
    for trial in trials:
        score = cards[trial.id].by_name().get(head.name)
        if score is not None:
            pools.setdefault(_identity(trial), []).append((trial, score))
    points = [_point(pool, told) for pool in pools.values()]
    points.sort(key=lambda point: point.prompt_loss_weight)
    best = _best(points, higher_is_better=head.higher_is_better)
    is_named, verdict = judge(points, best, head.unit)
    reference = _of_items(untuned) if untuned else None
    title, phrase = _names(head)
    return Measure(
        id=head.name,
        base=trials[0].base,
        name=head.name,
        title=title,
        phrase=phrase,
        group=head.group,
        unit=head.unit,
        higher_is_better=head.higher_is_better,
        points=points,
        untuned=reference,
        best=best,
        is_named=is_named,
        verdict=verdict,
        beats_untuned=_beats(best, reference, higher_is_better=head.higher_is_better),
        single_seed=any(len(point.seeds) == 1 for point in points),
    )


def _identity(trial: TrialRecord) -> str:
    """What trials must share to count as seeds of one setting: everything but `seed`."""
    shared = {key: value for key, value in trial.settings.items() if key != "seed"}
    return json.dumps(shared, sort_keys=True, default=str)


def _point(pool: Sequence[tuple[TrialRecord, Score]], told: Collection[str]) -> Point:
    """One setting's seeds together; the searched settings in `told` go without saying."""
    trial = pool[0][0]
    scores = [score for _, score in pool]
    other = {
        key: value
        for key, value in trial.searched.items()
        if key.rpartition(".")[2] not in ("prompt_loss_weight", "seed") and key not in told
    }
    return Point(
        **over_seeds(scores).model_dump(),
        prompt_loss_weight=trial.prompt_loss_weight,
        w_p=w_p(trial.prompt_loss_weight),
        other_settings=other,
        seeds=[int(trial.settings["seed"]) for trial, _ in pool],
        trial_ids=[trial.id for trial, _ in pool],
    )


def _of_items(score: Score) -> Estimate:
    has_interval = score.ci_low is not None and score.ci_high is not None
    return Estimate(
        value=score.value,
        ci_low=score.ci_low if has_interval else None,
        ci_high=score.ci_high if has_interval else None,
        interval="items" if has_interval else None,
        num_items=score.num_items,
    )


def over_seeds(scores: Sequence[Score]) -> Estimate:
    """The mean over seeds with a Student t 95% interval; one seed keeps its items' interval.

    Seeds that agree to the last digit, as counts of few items often do, have no spread to
    estimate from: their interval is the items' one too (the widest), never one of width 0.
    """
    if len(scores) == 1:
        return _of_items(scores[0])
    values = [score.value for score in scores]
    mean = math.fsum(values) / len(values)
    num_items = min(score.num_items for score in scores)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    if spread <= 1e-12 * max(1.0, abs(mean)):
        lows = [score.ci_low for score in scores if score.ci_low is not None]
        highs = [score.ci_high for score in scores if score.ci_high is not None]
        complete = len(lows) == len(highs) == len(scores)
        return Estimate(
            value=mean,
            ci_low=min(lows) if complete else None,
            ci_high=max(highs) if complete else None,
            interval="items" if complete else None,
            num_items=num_items,
        )
    # scipy.stats takes a second to import; a sweep of single seeds never needs it.
    from scipy.stats import t as student_t

    quantile = float(student_t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    half = quantile * spread / math.sqrt(len(values))
    low, high = mean - half, mean + half
    if scores[0].unit.startswith("share"):
        # Student's t knows no bounds, and with two seeds goes far beyond them.
        low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(value=mean, ci_low=low, ci_high=high, interval="seeds", num_items=num_items)


def _best(points: Sequence[Point], *, higher_is_better: bool) -> Point | None:
    if not points:
        return None
    return (max if higher_is_better else min)(points, key=lambda point: point.value)


def judge(points: Sequence[Point], best: Point | None, unit: str) -> tuple[bool, str]:
    """Whether `best` is named, and why: its interval must be apart from every other PLW's."""
    if best is None:
        return False, "not scored"
    rivals = [p for p in points if p.prompt_loss_weight != best.prompt_loss_weight]
    if not rivals:
        return False, f"only {best.label} was scored: nothing to compare it with"
    without = [point for point in (best, *rivals) if point.ci_low is None]
    if without:
        return False, f"no PLW stands out: no interval for {_plws(without)}"
    span = f"{format_value(best.ci_low, unit)} to {format_value(best.ci_high, unit)}"
    overlapping = [point for point in rivals if _overlap(best, point)]
    if overlapping:
        return False, (
            f"no PLW stands out: intervals overlap ({span} at {best.label} "
            f"with {_plws(overlapping)})"
        )
    return True, f"{best.label} is best: its interval, {span}, overlaps no other PLW's"


def _overlap(one: Estimate, other: Estimate) -> bool:
    if None in (one.ci_low, one.ci_high, other.ci_low, other.ci_high):
        return True
    return bool(one.ci_low <= other.ci_high and other.ci_low <= one.ci_high)  # type: ignore[operator]


def _beats(best: Point | None, untuned: Estimate | None, *, higher_is_better: bool) -> bool | None:
    if best is None or untuned is None or best.ci_low is None or untuned.ci_low is None:
        return None
    is_better = best.value > untuned.value if higher_is_better else best.value < untuned.value
    return is_better and not _overlap(best, untuned)


def best_label(measure: Measure) -> str:
    """The best point observed, or all the weights that share its value."""
    if len(measure.ties) > 1:
        return _plws(measure.ties)
    return measure.best.label if measure.best else "-"


def _plws(points: Sequence[Point]) -> str:
    weights = sorted({point.prompt_loss_weight for point in points})
    if len(weights) > MAX_PLWS_NAMED:
        return f"{len(weights)} PLWs"
    names = [f"{weight:g}" for weight in weights]
    return "PLW " + (" and ".join([", ".join(names[:-1]), names[-1]]) if names[1:] else names[0])


def _names(score: Score) -> tuple[str, str]:
    """A title for tables and a phrase for sentences."""
    if score.group is None:
        return "Held-out completion loss", "held-out completion loss"
    group = score.group.replace("_", " ")
    metric = score.name.removeprefix(score.group).strip("_./ ").replace("_", " ")
    metric = metric.replace("chrf", "chrF")
    title = f"{group.capitalize()}, {metric}" if metric else group.capitalize()
    return title, f"{group.replace(' ', '-')} {metric or 'score'}"


def _is_demo(trial: TrialRecord) -> bool:
    sections = (trial.settings.get(name) or {} for name in ("model", "data"))
    return any(str(section.get("path", "")).startswith("demo:") for section in sections)


def headline(findings: Findings) -> str:
    """The answer in one or two plain sentences: which PLW to use, or that none stands out."""
    counts = findings.trials
    missing = []
    if counts.failed:
        missing.append(f"{counts.failed} failed")
    if counts.stopped:
        missing.append(f"{counts.stopped} stopped early")
    if counts.unfinished:
        missing.append(f"{counts.unfinished} unfinished")
    if counts.done > counts.scored:
        missing.append(f"{counts.done - counts.scored} without scores")
    trials = f"{counts.planned} trial{'' if counts.planned == 1 else 's'}"
    tail = f" Of {trials}, {' and '.join(missing)}." if missing else ""
    prefix, answer = _prefix(findings), _answer(findings)
    if prefix and not answer.startswith("PLW"):
        answer = answer[0].lower() + answer[1:]
    return f"{prefix}{answer}{tail}"


def _prefix(findings: Findings) -> str:
    if not findings.measures:
        return ""
    seed, demo = findings.single_seed, findings.is_demo
    return {
        (True, True): "Single-seed demo: ",
        (True, False): "Single seed: ",
        (False, True): "Demo: ",
        (False, False): "",
    }[seed, demo]


def _answer(findings: Findings) -> str:
    if not findings.measures:
        return "No PLW can be recommended: no trial has scores yet."
    named = [measure for measure in findings.measures if measure.is_named]
    if named:
        parts = [f"{m.best.label} for {m.phrase} ({m.describe(m.best)})" for m in named if m.best]
        rest = len(findings.measures) - len(named)
        others = f"; {rest} other measure{'s name' if rest > 1 else ' names'} none" if rest else ""
        return f"The best is {' and '.join(parts)}, apart from every other PLW{others}."
    lead = findings.measures[0]
    assert lead.best is not None
    if len({point.prompt_loss_weight for point in lead.points}) == 1:
        return (
            f"Only {lead.best.label} has scores ({lead.phrase} {lead.describe(lead.best)}), "
            "so there is nothing to compare it with."
        )
    extreme = "highest" if lead.higher_is_better else "lowest"
    reason = "an interval is missing" if "no interval" in lead.verdict else "the intervals overlap"
    scope = ", and no other measure names one" if findings.measures[1:] else ""
    verb = "share" if len(lead.ties) > 1 else "had"
    return (
        f"{best_label(lead)} {verb} the {extreme} {lead.phrase} ({lead.describe(lead.best)}), "
        f"but {reason}, so no PLW is named best{scope}."
    )
