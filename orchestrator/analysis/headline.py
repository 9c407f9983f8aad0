"""Write the headline of a sweep's report, and the conditions that qualify it."""

from collections.abc import Sequence

from orchestrator.analysis.findings import FailedTrial, Findings, Panel
from orchestrator.statistics.conclusions_markdown import headline as answer_headline
from orchestrator.statistics.conclusions_markdown import headline_conditions, outlier_sentence
from orchestrator.statistics.messages import join_words, short_verdict
from trainers.foundation.counts import format_count

# Longer lists are shortened; the table of trials has all names.
MAX_NAMED = 6


def headline(findings: Findings) -> str:
    """Return the verdict on PLW and its data, then the gain or the trials to run next.

    If the completion weight varied too, the best pair of weights replaces the verdict.
    """
    return " ".join(filter(None, [_answer(findings), unscored_trials_text(findings)]))


def short_answer(findings: Findings) -> str:
    """Return the answer in a few words, such as `PLW 0.24 (0.1 to 0.46)` or `cannot say`."""
    lead, pairs = findings.lead, findings.weight_map
    if lead is None:
        return "no scores yet"
    if not findings.is_about_plw:
        return f"PLW {findings.plws[0]:g} in every trial"
    if pairs is not None and pairs.grid.noise_sd is not None and pairs.names_best:
        prompt, completion = pairs.grid.best
        return f"prompt weight {prompt:g}, completion weight {completion:g}"
    return short_verdict(lead.lead)


def conditions(findings: Findings) -> list[str]:
    """Return the conditions that qualify the headline, in one or two sentences each.

    Conditions are the best observed setting if other settings varied and no weight is named, lack
    of fit, outliers (with the result without them) and trials without scores.
    """
    if findings.lead is None:
        return []
    found = headline_conditions(findings.lead) if findings.is_about_plw else []
    if findings.is_about_plw and findings.varied and not findings.lead.lead.names_weight:
        found = [*filter(None, [_best_observed_text(findings)]), *found]
    losses = findings.losses
    if findings.is_about_plw and losses is not None and losses is not findings.lead:
        outliers = outlier_sentence(losses)
        found += [f"Held-out loss, {outliers[0].lower()}{outliers[1:]}"] if outliers else []
    for is_diverged, cause in ((True, "Diverged"), (False, "Failed")):
        failed = [trial for trial in findings.lost if trial.is_diverged is is_diverged]
        if failed:
            found.append(_failed_sentence(cause, failed))
    return found


def _failed_sentence(cause: str, failed: Sequence[FailedTrial]) -> str:
    """Return text such as `Diverged: trial ab12 (PLW 1, seed 2). It has no scores ...`."""
    named = [
        f"{trial.id} (PLW {trial.prompt_loss_weight:g}"
        + ("" if trial.seed is None else f", seed {trial.seed}")
        + ")"
        for trial in failed[:MAX_NAMED]
    ]
    if len(failed) > MAX_NAMED:
        named.append(f"{len(failed) - MAX_NAMED} more")
    if len(failed) == 1:
        return f"{cause}: trial {named[0]}. It has no scores; the result excludes it."
    return f"{cause}: trials {join_words(named)}. They have no scores; the result excludes them."


def unscored_trials_text(findings: Findings) -> str:
    """Return text such as `Of 4 trials: 1 failed, 2 unfinished.`; empty if all have scores."""
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
    return f"Of {format_count(counts.planned, 'trial')}: {', '.join(missing)}."


def _answer(findings: Findings) -> str:
    lead = findings.lead
    if lead is None:
        return "No result yet: no trial has scores."
    if not findings.is_about_plw:
        return _constant_plw_text(findings)
    pairs = findings.weight_map
    if pairs is not None and pairs.grid.noise_sd is not None:
        # If there is a best pair, add the sentence on other pairs that may be best.
        return " ".join(pairs.sentences[: 2 if pairs.names_best else 1])
    counts = findings.trials
    is_partial = lead.lead.num_trials < counts.planned
    text = answer_headline(
        lead,
        planned=f" of {counts.planned}" if is_partial else "",
        has_unfinished=counts.unfinished > 0,
    )
    return text if pairs is None else f"{text} {pairs.sentences[0]}"


def _constant_plw_text(findings: Findings) -> str:
    """Return the headline for a sweep over other settings with a constant PLW."""
    same = (
        f"PLW was {findings.plws[0]:g} in every trial, so this sweep does not show its effect. "
        f"Varied: {join_words(findings.varied)}."
    )
    return " ".join(filter(None, [same, _best_observed_text(findings)]))


def _best_observed_text(findings: Findings) -> str:
    """Return two sentences on the setting with the best score; empty if there is only one."""
    panel: Panel = findings.panels[0]
    best = panel.best_observed
    if best is None or len(panel.points) < 2:
        return ""
    label = best.label if findings.is_about_plw else best.other or "one"
    extreme = "highest" if panel.higher_is_better else "lowest"
    name = panel.title.lower()
    measure = f"{name} score" if panel.unit == "points" else name
    relative = ", relative to the mean of its model and data" if panel.is_relative else ""
    return (
        f"Of {len(panel.points)} settings, {label} had the {extreme} {measure}"
        f" ({panel.describe(best)}{relative}). The best of several settings is biased by selection."
    )
