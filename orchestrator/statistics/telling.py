"""An answer as Markdown: the answer first, then each verdict, the front, what to run and notes."""

from collections.abc import Sequence

from orchestrator.statistics.paper_model import PaperModel
from orchestrator.statistics.pareto import FrontPoint
from orchestrator.statistics.verdicts import Answer, Verdict

_SURE = 0.95


def answer_markdown(answer: Answer, paper: PaperModel | None = None, unit: str = "points") -> str:
    """All of `answer`; `paper` is told beside it, for comparison."""
    parts = [headline(answer, unit), _verdict_table(answer.verdicts, unit)]
    if answer.next_runs:
        parts.append(_next_runs(answer))
    if answer.front:
        parts.append(_front_table(answer.front, unit))
    if paper is not None:
        parts.append(_paper(paper))
    if answer.notes:
        parts.append("Notes\n\n" + "\n".join(f"- {note}" for note in answer.notes))
    return "\n\n".join(parts) + "\n"


def headline(answer: Answer, unit: str = "points") -> str:
    """The leading verdict, and what its weight gains where there is an effect."""
    first = answer.verdicts[0]
    said = f"{_name(first)}: {first.text}."
    if not first.claims_effect or first.kind == "cannot say" or first.best_plw is None:
        return said
    if first.reference_plw == first.best_plw:
        return said
    return (
        f"{said} It gains {first.gain:.1f} {unit} over PLW {first.reference_plw:g} (95% interval "
        f"{first.gain_low:.1f} to {first.gain_high:.1f}), corrected for having been chosen."
    )


def _name(verdict: Verdict) -> str:
    name = verdict.group.replace("_", " ")
    if verdict.cell is not None:
        name += f" ({', '.join(part for part in verdict.cell if part)})"
    return name[0].upper() + name[1:]


def _verdict_table(verdicts: Sequence[Verdict], unit: str) -> str:
    lines = [
        f"| scores | trials | verdict | gain, {unit} (95%) | p |",
        "|---|---:|---|---|---:|",
    ]
    for verdict in verdicts:
        gain = "-"
        if verdict.gain is not None and verdict.best_plw != verdict.reference_plw:
            gain = f"{verdict.gain:.1f} ({verdict.gain_low:.1f} to {verdict.gain_high:.1f})"
        p_value = "-" if verdict.adjusted_p_value is None else f"{verdict.adjusted_p_value:.2g}"
        lines.append(
            f"| {_name(verdict)} | {verdict.num_trials} | {verdict.text} | {gain} | {p_value} |"
        )
    legend = (
        "Gain: of the best weight over the lowest tried, corrected for having been chosen. "
        "p: of a flat curve, corrected for the number of lines."
    )
    return "\n".join(lines) + f"\n\n{legend}"


def _next_runs(answer: Answer) -> str:
    count = len(answer.next_runs)
    lines = [f"Run these {count} next:", ""]
    for run in answer.next_runs:
        where = ", ".join(part for part in run.cell if part)
        line = f"- PLW {run.plw:g}, seed {run.seed}" + (f" ({where})" if where else "")
        if run.width_left is not None:
            line += f": the interval would be about {run.width_left:.0%} as wide"
        lines.append(line)
    return "\n".join(lines)


def _front_table(front: Sequence[FrontPoint], unit: str) -> str:
    groups = list(front[0].points)
    lines = [
        f"No other weight is better in all groups ({unit} over PLW {front[0].plw:g}, fitted):",
        "",
        "| PLW | " + " | ".join(group.replace("_", " ") for group in groups) + " | on the front |",
        "|---:|" + "---:|" * len(groups) + "---|",
    ]
    for point in front:
        values = " | ".join(f"{point.points[group]:+.1f}" for group in groups)
        lines.append(f"| {point.plw:g} | {values} | {_place(point)} |")
    return "\n".join(lines)


def _place(point: FrontPoint) -> str:
    found = "yes" if point.is_on_front else "no"
    if point.probability is None:
        return found
    is_open = 1 - _SURE < point.probability < _SURE
    sure = "open" if is_open else "sure"
    return f"{found}, {sure} ({point.probability:.0%} likely on it)"


def _paper(paper: PaperModel) -> str:
    constant, slope, curvature = paper.fit.coefficients
    return (
        "The paper's model, for comparison (beta regression, a random intercept for each "
        f"benchmark): logit score = {constant:.3f} {slope:+.3f} w_p {curvature:+.3f} w_p^2, "
        f"highest at PLW {paper.critical_plw:.2g}. It takes every score for a trial, so its "
        "certainty is not to be trusted."
    )
