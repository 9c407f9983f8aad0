"""An answer as Markdown: the answer first, then each verdict, the front, what to run and notes."""

from collections.abc import Sequence

from orchestrator.statistics.paper_model import PaperModel
from orchestrator.statistics.pareto import FrontPoint
from orchestrator.statistics.verdicts import Answer, Verdict
from orchestrator.statistics.wording import amount, bare_amount, plw_label

_SURE = 0.95


LEGEND = (
    "Gain: of the best weight over the lowest tried, corrected for having been chosen. "
    "p: of a flat curve, corrected for the number of lines."
)


def answer_markdown(answer: Answer, paper: PaperModel | None = None) -> str:
    """All of `answer`; `paper` is told beside it, for comparison."""
    parts = [headline(answer), _verdict_table(answer.verdicts, answer.unit)]
    if answer.next_runs:
        parts.append(_next_runs(answer))
    if answer.front:
        parts.append(_front_table(answer.front, answer.unit))
    if paper is not None:
        parts.append(_paper(paper))
    if answer.notes:
        parts.append("Notes\n\n" + "\n".join(f"- {note}" for note in answer.notes))
    return "\n\n".join(parts) + "\n"


def headline(answer: Answer, planned: str = "") -> str:
    """Two sentences: the leading verdict with what it rests on, then its gain or what to run.

    Args:
        planned: of how many trials, such as ` of 6`, where some have no scores.
    """
    first = answer.lead
    said = f"{verdict_title(first)}: {first.text}, {_basis(first, planned)}."
    if first.kind == "cannot say":
        return f"{said} {_next_sentence(answer)}".rstrip()
    if first.gain is None or first.reference_plw == first.best_plw:
        return said
    assert first.best_plw is not None
    return (
        f"{said} PLW {plw_label(first.best_plw)} gains {amount(first.gain, answer.unit)} over PLW "
        f"{first.reference_plw:g} (95% interval {gain_interval(first, answer.unit)}), corrected "
        "for having been chosen."
    )


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
    """The runs to do next, by PLW; those of one weight and cell together."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for run in answer.next_runs:
        cell = ", ".join(part for part in run.cell if part)
        seeds.setdefault((f"{run.plw:g}", cell), []).append(str(run.seed))
    if not seeds:
        return ""
    parts = [
        f"PLW {plw} with seed{'s' if own[1:] else ''} {_listed(own)}"
        + (f" ({cell})" if cell else "")
        for (plw, cell), own in seeds.items()
    ]
    number = {5: "five"}.get(len(answer.next_runs), str(len(answer.next_runs)))
    return f"Run these {number} next: {'; '.join(parts)}."


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([*([", ".join(parts[:-1])] if parts[1:] else []), parts[-1]])


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
    """The gain with its interval, or a dash where the best weight is the reference itself."""
    if verdict.gain is None or verdict.best_plw == verdict.reference_plw:
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


def _paper(paper: PaperModel) -> str:
    constant, slope, curvature = paper.fit.coefficients
    return (
        "The paper's model, for comparison (beta regression, a random intercept for each "
        f"benchmark): logit score = {constant:.3f} {slope:+.3f} w_p {curvature:+.3f} w_p^2, "
        f"highest at PLW {paper.critical_plw:.2g}. It takes every score for a trial, so its "
        "certainty is not to be trusted."
    )
