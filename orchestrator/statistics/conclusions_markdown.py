"""Format conclusions as Markdown: headline, verdicts, next trials, Pareto front and notes."""

from collections.abc import Sequence

from orchestrator.statistics.conclusions import Conclusions
from orchestrator.statistics.follow_up_design import FollowUp, NextRun
from orchestrator.statistics.messages import (
    assumes_curve,
    assumption_text,
    capitalize,
    format_amount,
    format_number,
    format_p_value,
    format_tried_plw,
    group_name,
    join_words,
    outlier_text,
)
from orchestrator.statistics.pareto import FrontPoint
from orchestrator.statistics.verdict import Verdict
from trainers.foundation.counts import format_count

# Minimum probability at which a weight is called certain to be on, or off, the front.
_CERTAIN = 0.95
# The headline warns if the next trials lead to an answer in a smaller share of simulated studies.
_LIKELY = 0.5

LEGEND = (
    "Gain: improvement of the best weight over the lowest weight tried, corrected for choosing the "
    "best of several estimates; the correction may make it negative. p: test of no difference "
    "between weights, corrected over all verdicts of the report (Holm)."
)


def format_markdown(conclusions: Conclusions) -> str:
    """Return all of `conclusions` as Markdown."""
    parts = [headline(conclusions), *headline_conditions(conclusions)]
    parts.append(_verdict_table(conclusions.verdicts, conclusions.unit))
    if conclusions.follow_up is not None and conclusions.next_runs:
        parts.append(_next_runs(conclusions.follow_up))
    if conclusions.front:
        parts.append(_front_table(conclusions.front, conclusions.unit))
    if conclusions.notes:
        parts.append("Notes\n\n" + "\n".join(f"- {note}" for note in conclusions.notes))
    return "\n\n".join(parts) + "\n"


def headline(conclusions: Conclusions, planned: str = "", *, has_unfinished: bool = False) -> str:
    """Return the leading verdict, its gain, its data, and the trials to run next.

    Args:
        planned: text with the number of planned trials, such as ` of 6`; empty if all have scores.
        has_unfinished: planned trials have not finished; these come before any other ones.
    """
    lead = conclusions.lead
    assumed = ", assuming a parabola in w_p" if assumes_curve(lead) else ""
    basis = f"Based on {_basis(lead, planned)}{assumed}{_rates_text(conclusions)}."
    text = f"{verdict_title(lead)}: {lead.text}."
    if lead.kind == "cannot say":
        more = "" if has_unfinished else _next_sentence(conclusions)
        return f"{text} {basis} {more}".rstrip()
    if gain_text(lead, conclusions.unit) == "-":
        return f"{text} {basis}"
    assert lead.gain is not None
    return (
        f"{text} Gain over PLW {lead.reference_plw:g}: "
        f"{format_amount(lead.gain, conclusions.unit)} (95% interval "
        f"{gain_interval(lead, conclusions.unit)}), corrected for selection. {basis}"
    )


def headline_conditions(conclusions: Conclusions) -> list[str]:
    """Return the caveats of the headline: untested assumptions, lack of fit and outliers."""
    condition = assumption_text(conclusions.lead)
    sentences = [f"{capitalize(condition)}." if condition else ""]
    if assumes_curve(conclusions.lead):
        sentences = [
            "Too few weights are repeated to test the parabola and equal noise at all weights; "
            "run a second seed of each."
        ]
    return [sentence for sentence in (*sentences, outlier_sentence(conclusions)) if sentence]


def outlier_sentence(conclusions: Conclusions) -> str:
    """Return a sentence with the outliers and the leading verdict without them; else empty."""
    if not conclusions.outliers:
        return ""
    outliers = [outlier_text(each, conclusions.unit) for each in conclusions.outliers]
    sentence = f"Outlier{'s' if outliers[1:] else ''}: {join_words(outliers)}."
    if conclusions.without_outliers:
        lead = conclusions.without_outliers[0]
        sentence += f" Without {'them' if outliers[1:] else 'it'}: {lead.text}"
        gain = gain_text(lead, conclusions.unit)
        sentence += "." if gain == "-" else f"; gain {gain} {conclusions.unit}."
    return sentence


def _basis(verdict: Verdict, planned: str) -> str:
    """Return text such as `21 of 24 trials (7 weights, 3 seeds each)`."""
    trials = format_count(verdict.num_trials, "trial")
    if planned:
        trials = f"{verdict.num_trials}{planned} trials"
    if not verdict.num_trials:
        return trials
    return f"{trials} ({weights_and_seeds(verdict)})"


def _rates_text(conclusions: Conclusions) -> str:
    """Return text such as `; 0.0003 is the best of 4 learning rates`; empty without several."""
    best = conclusions.best_rates
    if not best:
        return ""
    if len(best) > 1:
        return "; each model, data set and condition at the best of its learning rates"
    return f"; {best[0].learning_rate:g} is the best of {len(best[0].tried)} learning rates"


def weights_and_seeds(verdict: Verdict) -> str:
    """Return text such as `7 weights, 2 to 3 seeds each`, or `..., 2 data sets`."""
    fewest, most = verdict.num_seeds
    seeds = format_count(most, "seed")
    if fewest < most:
        seeds = f"{fewest} to {seeds}"
    names = ("model", "data set", "condition")
    parts = [
        format_count(number, name)
        for number, name in zip(verdict.num_cell_parts, names, strict=True)
        if number > 1
    ]
    return ", ".join([format_count(verdict.num_weights, "weight"), f"{seeds} each", *parts])


def _next_sentence(conclusions: Conclusions) -> str:
    """Return a sentence on the trials to run next, by weights and cell.

    If they are unlikely to lead to an answer, a second sentence says so.
    """
    plws: dict[tuple[int, str], list[str]] = {}
    for run in conclusions.next_runs:
        cell = ", ".join(part for part in run.cell if part)
        plws.setdefault((run.seed, cell), []).append(format_tried_plw(run.plw))
    if not plws or conclusions.follow_up is None:
        return ""
    seeds: dict[tuple[str, str], list[str]] = {}
    for (seed, cell), own in plws.items():
        seeds.setdefault((join_words(own), cell), []).append(str(seed))
    parts = [
        f"PLW {weights} with seed{'s' if len(own) > 1 else ''} {join_words(own)}"
        + (f" ({cell})" if cell else "")
        for (weights, cell), own in seeds.items()
    ]
    count = len(conclusions.next_runs)
    runs = "Run this trial next" if count == 1 else f"Run these {count} trials next"
    text = f"{runs}{_rate_text(conclusions.follow_up)}: {'; '.join(parts)}."
    prospect = conclusions.follow_up.prospect
    if prospect is None or prospect.names >= _LIKELY:
        return text
    return f"{text} {prospect_text(conclusions.follow_up)}"


def _rate_text(design: FollowUp) -> str:
    """Return ` at learning rate 1e-04` if that of the next trials must be chosen, else nothing."""
    return "" if design.learning_rate is None else f" at learning rate {design.learning_rate:g}"


def verdict_title(verdict: Verdict) -> str:
    """Return text such as `Multiple choice` or `Overall (model tiny)`."""
    name = group_name(verdict.group)
    if verdict.cell is not None:
        name += f" ({', '.join(part for part in verdict.cell if part)})"
    elif verdict.learning_rate is not None:
        name += f" at learning rate {verdict.learning_rate:g}"
    return capitalize(name)


def gain_interval(verdict: Verdict, unit: str) -> str:
    """Return text such as `0.4 to 3.1`."""
    if verdict.gain_low is None or verdict.gain_high is None:
        return "-"
    return f"{format_number(verdict.gain_low, unit)} to {format_number(verdict.gain_high, unit)}"


def gain_text(verdict: Verdict, unit: str) -> str:
    """Return the gain with its interval, or `-` if the verdict has none."""
    is_reference = verdict.best_plw == verdict.reference_plw
    if verdict.gain is None or is_reference or not verdict.names_weight:
        return "-"
    return f"{format_number(verdict.gain, unit)} ({gain_interval(verdict, unit)})"


def _verdict_table(verdicts: Sequence[Verdict], unit: str) -> str:
    lines = [
        f"| scores | trials | verdict | gain, {unit} (95%) | p |",
        "|---|---:|---|---|---:|",
    ]
    for verdict in verdicts:
        p_value = format_p_value(verdict.adjusted_p_value)
        lines.append(
            f"| {verdict_title(verdict)} | {verdict.num_trials} | {verdict.text} "
            f"| {gain_text(verdict, unit)} | {p_value} |"
        )
    return "\n".join(lines) + f"\n\n{LEGEND}"


def _next_runs(design: FollowUp) -> str:
    lines = [f"Next trials{_rate_text(design)} ({design.reason}):", ""]
    lines += [f"- {run_text(run)}" for run in design.runs]
    prospect = prospect_text(design)
    return "\n".join([*lines, *(["", prospect] if prospect else [])])


def run_text(run: NextRun) -> str:
    """Return text such as `PLW 0.1, seed 3 (model tiny)`."""
    cell = ", ".join(part for part in run.cell if part)
    return f"PLW {run.plw:g}, seed {run.seed}" + (f" ({cell})" if cell else "")


def prospect_text(design: FollowUp) -> str:
    """Return a sentence on the expected result of the next trials; empty if unknown."""
    prospect = design.prospect
    if prospect is None:
        return ""
    text = (
        f"With these trials, if the effect is as estimated, {prospect.names:.0%} of "
        f"{prospect.num_studies} simulated studies name a best weight"
    )
    if prospect.detects > 0 and prospect.width_ratio:
        text += f", with an interval about {prospect.width_ratio:.0%} as wide as now"
    return f"{text}."


def _front_table(front: Sequence[FrontPoint], unit: str) -> str:
    groups = list(front[0].points)
    lines = [
        f"Pareto front over the groups ({unit} over PLW {front[0].plw:g}):",
        "",
        "| PLW | " + " | ".join(map(group_name, groups)) + " | on the front |",
        "|---:|" + "---:|" * len(groups) + "---|",
    ]
    for point in front:
        values = " | ".join(f"{point.points[group]:+.1f}" for group in groups)
        lines.append(f"| {point.plw:g} | {values} | {front_place(point)} |")
    return "\n".join(lines)


def front_place(point: FrontPoint) -> str:
    """Return whether a weight is on the front, with its probability."""
    found = "yes" if point.is_on_front else "no"
    if point.probability is None:
        return found
    is_certain = not 1 - _CERTAIN < point.probability < _CERTAIN
    certainty = "certain" if is_certain else "uncertain"
    return f"{found}, {certainty} (probability {point.probability:.0%})"
