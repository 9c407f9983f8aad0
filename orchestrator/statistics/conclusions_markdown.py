"""An answer as Markdown: the answer first, then each verdict, what to run next, front and notes."""

from collections.abc import Sequence

from orchestrator.statistics.conclusions import Answer
from orchestrator.statistics.follow_up_design import FollowUp
from orchestrator.statistics.messages import (
    amount,
    bare_amount,
    condition_text,
    listed,
    outlier_text,
    plw_label,
    rests_on_assumption,
    tried_label,
)
from orchestrator.statistics.pareto import FrontPoint
from orchestrator.statistics.verdict import Verdict

_SURE = 0.95


LEGEND = (
    "Gain: the score of the best weight less that of the lowest tried, corrected for choosing the "
    "best of several estimates. p: of the weight making no difference, corrected over all verdicts "
    "of the report (Holm)."
)


def answer_markdown(answer: Answer) -> str:
    """All of `answer`."""
    parts = [headline(answer), *answer_conditions(answer)]
    parts.append(_verdict_table(answer.verdicts, answer.unit))
    if answer.follow_up is not None and answer.next_runs:
        parts.append(_next_runs(answer.follow_up))
    if answer.front:
        parts.append(_front_table(answer.front, answer.unit))
    if answer.notes:
        parts.append("Notes\n\n" + "\n".join(f"- {note}" for note in answer.notes))
    return "\n\n".join(parts) + "\n"


def headline(answer: Answer, planned: str = "") -> str:
    """The leading verdict with what it rests on, then its gain or what to run next.

    Args:
        planned: of how many trials, such as ` of 6`, where some have no scores.
    """
    first = answer.lead
    assumed = ", assuming a parabola in w_p" if rests_on_assumption(first) else ""
    text = f"{verdict_title(first)}: {first.text}, {_basis(first, planned)}{assumed}."
    if first.kind == "cannot say":
        next_runs = _next_sentence(answer)
        return f"{text} {next_runs}".rstrip()
    if gain_text(first, answer.unit) == "-":
        return text
    assert first.best_plw is not None
    assert first.gain is not None
    label = tried_label if first.best_plw == first.nearest_plw else plw_label
    return (
        f"{text} PLW {label(first.best_plw)} gains {amount(first.gain, answer.unit)} over PLW "
        f"{first.reference_plw:g} (95% interval {gain_interval(first, answer.unit)}), corrected "
        "for having been chosen."
    )


def answer_conditions(answer: Answer) -> list[str]:
    """What must be read with the headline: whether the curve fits, and outliers, if any."""
    condition = condition_text(answer.lead)
    sentences = [f"{condition[0].upper()}{condition[1:]}." if condition else ""]
    if rests_on_assumption(answer.lead):
        sentences = [
            "Too few weights are repeated to test the parabola, or whether noise is equal at all "
            "weights; a second seed of each would."
        ]
    return [sentence for sentence in (*sentences, outlier_sentence(answer)) if sentence]


def outlier_sentence(answer: Answer) -> str:
    """The outliers, and the leading verdict without them; empty where there are none."""
    if not answer.outliers:
        return ""
    outliers = [outlier_text(each, answer.unit) for each in answer.outliers]
    sentence = f"Outlier{'s' if outliers[1:] else ''}: {listed(outliers)}."
    if answer.without_outliers:
        lead = answer.without_outliers[0]
        sentence += f" Without {'them' if outliers[1:] else 'it'}: {lead.text}"
        gain = gain_text(lead, answer.unit)
        sentence += "." if gain == "-" else f"; gain {gain} {answer.unit}."
    return sentence


def _basis(verdict: Verdict, planned: str) -> str:
    """Such as `from 21 of 24 trials of 7 weights with 3 seeds each`."""
    fewest, most = verdict.num_seeds
    each = f"{fewest} to {most} seeds" if fewest < most else _counted(most, "seed")
    trials = (
        _counted(verdict.num_trials, "trial")
        if not planned
        else (f"{verdict.num_trials}{planned} trials")
    )
    weights = _counted(verdict.num_weights, "weight")
    return (
        f"from {trials} of {weights} with {each} each" if verdict.num_trials else f"from {trials}"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _next_sentence(answer: Answer) -> str:
    """The runs to do next, by seed and cell."""
    plws: dict[tuple[int, str], list[str]] = {}
    for run in answer.next_runs:
        cell = ", ".join(part for part in run.cell if part)
        plws.setdefault((run.seed, cell), []).append(tried_label(run.plw))
    if not plws:
        return ""
    parts = [
        f"PLW {listed(own)} with seed {seed}" + (f" ({cell})" if cell else "")
        for (seed, cell), own in plws.items()
    ]
    count = len(answer.next_runs)
    runs = "Run this trial next" if count == 1 else f"Run these {count} next"
    return f"{runs}: {'; '.join(parts)}."


def verdict_title(verdict: Verdict) -> str:
    """Such as `Multiple choice` or `Overall (model tiny)`."""
    name = verdict.group.replace("_", " ").replace("heldout", "held-out")
    if verdict.cell is not None:
        name += f" ({', '.join(part for part in verdict.cell if part)})"
    return name[0].upper() + name[1:]


def gain_interval(verdict: Verdict, unit: str) -> str:
    """Such as `0.4 to 3.1`."""
    if verdict.gain_low is None or verdict.gain_high is None:
        return "-"
    return f"{bare_amount(verdict.gain_low, unit)} to {bare_amount(verdict.gain_high, unit)}"


def gain_text(verdict: Verdict, unit: str) -> str:
    """The gain with its interval; a dash where there is none to speak of."""
    is_reference = verdict.best_plw == verdict.reference_plw
    if verdict.gain is None or is_reference or not verdict.names_weight:
        return "-"
    return f"{bare_amount(verdict.gain, unit)} ({gain_interval(verdict, unit)})"


def _verdict_table(verdicts: Sequence[Verdict], unit: str) -> str:
    lines = [
        f"| scores | trials | verdict | gain, {unit} (95%) | p |",
        "|---|---:|---|---|---:|",
    ]
    for verdict in verdicts:
        p_value = "-" if verdict.adjusted_p_value is None else f"{verdict.adjusted_p_value:.2g}"
        lines.append(
            f"| {verdict_title(verdict)} | {verdict.num_trials} | {verdict.text} "
            f"| {gain_text(verdict, unit)} | {p_value} |"
        )
    return "\n".join(lines) + f"\n\n{LEGEND}"


def _next_runs(design: FollowUp) -> str:
    lines = [f"Next trials ({design.reason}):", ""]
    for run in design.runs:
        where = ", ".join(part for part in run.cell if part)
        lines.append(f"- PLW {run.plw:g}, seed {run.seed}" + (f" ({where})" if where else ""))
    prospect = prospect_text(design)
    return "\n".join([*lines, *(["", prospect] if prospect else [])])


def prospect_text(design: FollowUp) -> str:
    """What the next trials would show, in a sentence; empty where it is not known."""
    prospect = design.prospect
    if prospect is None:
        return ""
    text = (
        f"If the effect is as estimated, {prospect.names:.0%} of {prospect.num_studies} simulated "
        "studies name a best weight with them"
    )
    if prospect.detects > 0 and prospect.width_ratio:
        text += f", and its interval is about {prospect.width_ratio:.0%} as wide as now"
    return f"{text}."


def _front_table(front: Sequence[FrontPoint], unit: str) -> str:
    groups = list(front[0].points)
    lines = [
        f"No other weight is better in all groups ({unit} over PLW {front[0].plw:g}):",
        "",
        "| PLW | " + " | ".join(group.replace("_", " ") for group in groups) + " | on the front |",
        "|---:|" + "---:|" * len(groups) + "---|",
    ]
    for point in front:
        values = " | ".join(f"{point.points[group]:+.1f}" for group in groups)
        lines.append(f"| {point.plw:g} | {values} | {front_place(point)} |")
    return "\n".join(lines)


def front_place(point: FrontPoint) -> str:
    """Whether a weight is on the front, and how sure that is."""
    found = "yes" if point.is_on_front else "no"
    if point.probability is None:
        return found
    is_open = 1 - _SURE < point.probability < _SURE
    sure = "open" if is_open else "sure"
    return f"{found}, {sure} ({point.probability:.0%} likely on it)"
