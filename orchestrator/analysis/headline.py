"""The two sentences that a sweep's report begins with."""

from orchestrator.analysis.findings import Findings, Panel
from orchestrator.statistics import telling


def headline(findings: Findings) -> str:
    """The answer: a verdict on PLW with what it rests on, then its gain or what to run next.

    Where the completion weight varied too, the best pair of weights takes the verdict's place.
    """
    return " ".join(filter(None, [_answer(findings), lacking_trials(findings)]))


def lacking_trials(findings: Findings) -> str:
    """Such as `Of 4 trials, 1 failed and 2 unfinished.`; empty where all have scores."""
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
    if not missing:
        return ""
    trials = f"{counts.planned} trial{'' if counts.planned == 1 else 's'}"
    return f"Of {trials}, {' and '.join(missing)}."


def _answer(findings: Findings) -> str:
    lead = findings.lead
    if lead is None:
        return "No PLW can be recommended: no trial has scores yet."
    if not findings.is_about_plw:
        return _without_plw(findings)
    pairs = findings.weight_map
    if pairs is not None and pairs.grid.noise_sd is not None:
        # With a best pair, also the others that may be the best.
        return " ".join(pairs.sentences[: 2 if pairs.names_best else 1])
    counts = findings.trials
    is_partial = lead.lead.num_trials < counts.planned
    said = telling.headline(lead, planned=f" of {counts.planned}" if is_partial else "")
    return said if pairs is None else f"{said} {pairs.sentences[0]}"


def _without_plw(findings: Findings) -> str:
    """The fitting answer where other settings were searched and PLW was not."""
    same = (
        f"PLW was {findings.plws[0]:g} in every trial, so this sweep says nothing of it; what "
        f"varied is {' and '.join(findings.varied)}."
    )
    panel: Panel = findings.panels[0]
    best = panel.best_observed
    if best is None or len(panel.points) < 2:
        return same
    extreme = "highest" if panel.higher_is_better else "lowest"
    name = panel.title.lower()
    measure = f"{name} score" if panel.unit == "points" else name
    relative = ", counted from the mean of its model and data" if panel.is_relative else ""
    return (
        f"{same} Of {len(panel.points)} settings {best.other or 'one'} had the {extreme} {measure} "
        f"({panel.describe(best)}{relative}), which as the best of several is flattered by chance."
    )
