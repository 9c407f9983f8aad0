"""Print the results of `plw judge`."""

from typing import Any

from rich.table import Table

from evals.judge.agreement import Agreement, Validation
from evals.judge.compare import Comparison
from orchestrator.cli.render import console, make_table
from orchestrator.monitoring.status import format_number


def print_validation(validation: Validation, judge_cost: dict[str, Any] | None) -> None:
    """Print the agreement of the judge with people, and of people with each other."""
    judged = validation.num_pairs - validation.num_without_majority
    table = make_table(
        f"{judged} pairs with a majority of three people",
        ("agreement of",),
        ("accuracy", "95% interval", "Cohen's kappa", "95% interval"),
    )
    _row(table, "judge and majority", validation.judge)
    if validation.num_unparsable:
        _row(table, "  without unparsable verdicts", validation.judge_readable)
        _row(table, "  unparsable verdicts as ties", validation.judge_unparsable_as_tie)
    person = (validation.judge_person_accuracy, validation.judge_person_kappa)
    people = (validation.person_person_accuracy, validation.person_person_kappa)
    for name, (accuracy, kappa) in {
        "judge and one person": person,
        "one person and another": people,
    }.items():
        table.add_row(name, format_number(accuracy, ".3f"), "", format_number(kappa, ".3f"), "")
    console().print(table)
    print(
        f"pairs without a majority: {validation.num_without_majority}, left out;"
        f" pairs with an unparsable verdict: {validation.num_unparsable}, counted as wrong above"
    )
    if judge_cost is not None:
        print_cost(judge_cost)


def print_comparison(comparison: Comparison) -> None:
    """Print win rates, counts of verdicts and the cost."""
    table = make_table(
        f"{comparison.outputs} against {comparison.reference}",
        ("measure",),
        ("share", "95% interval", "pairs"),
    )
    for score in comparison.scores:
        low, high = format_number(score.ci_low, ".3f"), format_number(score.ci_high, ".3f")
        name = score.name.removeprefix("judged_").replace("_", " ")
        table.add_row(name, f"{score.value:.3f}", f"{low} to {high}", str(score.num_items))
    console().print(table)
    counts = comparison.judging
    print(
        f"{counts['num_wins']} wins, {counts['num_ties']} ties"
        f" ({counts['num_identical']} of equal outputs), {counts['num_losses']} losses;"
        f" {counts['num_unread']} pairs without a verdict, {counts['num_half_read']} with a verdict"
        " in one order alone"
    )
    if comparison.num_left_out:
        print(f"{comparison.num_left_out} references without an output are left out")
    print_cost(counts)


def print_cost(counts: dict[str, Any]) -> None:
    """Print the judge's requests, failures and cost."""
    print(
        f"judge: {counts['num_questions']} comparisons, {counts['num_kept_replies']} replies from"
        f" the cache; {counts['num_unparsable']} replies without a verdict,"
        f" {counts['num_unanswered']} comparisons without a reply"
    )
    if len(counts["served_models"]) > 1:
        served = ", ".join(f"{name} ({n} replies)" for name, n in counts["served_models"].items())
        print(f"warning: the endpoint served several models: {served}")
    if counts["first_share"] is not None:
        print(f"the output shown first won {counts['first_share']:.0%} of verdicts without ties")
    failed = ", ".join(f"{kind}: {n}" for kind, n in counts["failed_requests"].items())
    print(f"requests: {counts['num_requests']}" + (f" (failed: {failed})" if failed else ""))
    print(
        f"tokens: {counts['input_tokens']} in, {counts['output_tokens']} out;"
        f" cost {counts['cost']:.4f}"
        + (
            f" and at most {counts['possible_further_cost']:.4f} more for"
            f" {counts['num_uncounted_requests']} requests without a token count"
            if counts["num_uncounted_requests"]
            else ""
        )
    )


def _row(table: Table, name: str, agreement: Agreement | None) -> None:
    if agreement is None:
        table.add_row(name, "-", "-", "-", "-")
        return
    table.add_row(
        name,
        f"{agreement.accuracy:.3f}",
        _interval(agreement.accuracy_ci_low, agreement.accuracy_ci_high),
        format_number(agreement.kappa, ".3f"),
        _interval(agreement.kappa_ci_low, agreement.kappa_ci_high),
    )


def _interval(low: float | None, high: float | None) -> str:
    return f"{format_number(low, '.3f')} to {format_number(high, '.3f')}"
