"""What a sweep's report begins with: the answer in two sentences, and its conditions."""

from collections.abc import Sequence

from orchestrator.analysis.findings import Findings, LostTrial, Panel
from orchestrator.statistics.conclusions_markdown import answer_conditions, outlier_sentence
from orchestrator.statistics.conclusions_markdown import headline as answer_headline
from orchestrator.statistics.messages import listed

# More names than these are counted; the table of trials has them all.
MAX_NAMED = 6


def headline(findings: Findings) -> str:
    """The answer: a verdict on PLW with what it rests on, then its gain or what to run next.

    Where the completion weight varied too, the best pair of weights takes the verdict's place.
    """
    return " ".join(filter(None, [_answer(findings), lacking_trials(findings)]))


def conditions(findings: Findings) -> list[str]:
    """What must be read with the headline, a sentence or two each; empty where nothing.

    Whether the curve fits, outliers with the answer without them, and trials without scores.
    """
    if findings.lead is None:
        return []
    found = answer_conditions(findings.lead) if findings.is_about_plw else []
    losses = findings.losses
    if findings.is_about_plw and losses is not None and losses is not findings.lead:
        outliers = outlier_sentence(losses)
        found += [f"Held-out loss, {outliers[0].lower()}{outliers[1:]}"] if outliers else []
    for is_diverged, what in ((True, "Diverged"), (False, "Failed")):
        lost = [trial for trial in findings.lost if trial.is_diverged is is_diverged]
        if lost:
            found.append(_lost_sentence(what, lost))
    return found


def _lost_sentence(what: str, lost: Sequence[LostTrial]) -> str:
    """Such as `Diverged: trial ab12 (PLW 1, seed 2); it has no scores, so ... `."""
    named = [
        f"{trial.id} (PLW {trial.prompt_loss_weight:g}"
        + ("" if trial.seed is None else f", seed {trial.seed}")
        + ")"
        for trial in lost[:MAX_NAMED]
    ]
    if len(lost) > MAX_NAMED:
        named.append(f"{len(lost) - MAX_NAMED} more")
    if len(lost) == 1:
        return f"{what}: trial {named[0]}; it has no scores, so the answer is that without it."
    return (
        f"{what}: trials {listed(named)}; they have no scores, so the answer is that without them."
    )


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
    text = answer_headline(lead, planned=f" of {counts.planned}" if is_partial else "")
    return text if pairs is None else f"{text} {pairs.sentences[0]}"


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
