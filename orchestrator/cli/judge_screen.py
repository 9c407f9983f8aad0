"""What `plw judge` shows."""

from typing import Any

from rich.table import Table

from evals.judge.agreement import Agreement, Validation
from evals.judge.compare import Comparison
from orchestrator.cli.screen import console
from orchestrator.watching.status import format_number


def print_validation(validation: Validation, spent: dict[str, Any] | None) -> None:
    """The judge's agreement with people, and theirs with each other."""
    judged = validation.num_pairs - validation.num_without_majority
    table = Table(title=f"{judged} pairs with a majority of three people", title_justify="left")
    table.add_column("who agrees")
    for heading in ("accuracy", "95% interval", "Cohen's kappa", "95% interval"):
        table.add_column(heading, justify="right")
    _row(table, "judge and majority", validation.judge)
    if validation.num_unparsable:
        _row(table, "  without unparsable verdicts", validation.judge_readable)
        _row(table, "  unparsable taken for ties", validation.judge_unparsable_as_tie)
    person = (validation.judge_person_accuracy, validation.judge_person_kappa)
    people = (validation.person_person_accuracy, validation.person_person_kappa)
    for name, (accuracy, kappa) in {
        "judge and one person": person,
        "one person and another": people,
    }.items():
        table.add_row(name, format_number(accuracy, ".3f"), "", format_number(kappa, ".3f"), "")
    console().print(table)
    print(
        f"no majority: {validation.num_without_majority} pairs, left out;"
        f" no readable verdict: {validation.num_unparsable} pairs, counted as wrong above"
    )
    if spent is not None:
        print_spent(spent)


def print_comparison(found: Comparison) -> None:
    """Win rates, verdicts and what they cost."""
    table = Table(title=f"{found.outputs} against {found.reference}", title_justify="left")
    table.add_column("measure")
    for heading in ("share", "95% interval", "pairs"):
        table.add_column(heading, justify="right")
    for score in found.scores:
        low, high = format_number(score.ci_low, ".3f"), format_number(score.ci_high, ".3f")
        name = score.name.removeprefix("judged_").replace("_", " ")
        table.add_row(name, f"{score.value:.3f}", f"{low} to {high}", str(score.num_items))
    console().print(table)
    counts = found.judging
    print(
        f"{counts['num_wins']} wins, {counts['num_ties']} ties"
        f" ({counts['num_identical']} of equal outputs), {counts['num_losses']} losses;"
        f" {counts['num_unread']} pairs without a verdict"
    )
    if found.num_left_out:
        print(f"{found.num_left_out} references have no output to compare with and are left out")
    print_spent(counts)


def print_spent(counts: dict[str, Any]) -> None:
    """How the judge behaved and what it cost."""
    print(
        f"judge: {counts['num_questions']} questions, {counts['num_kept_replies']} answered from"
        f" the cache; {counts['num_unparsable']} replies without a verdict,"
        f" {counts['num_unanswered']} questions without a reply"
    )
    if counts["first_share"] is not None:
        print(f"the output shown first won {counts['first_share']:.0%} of what was no tie")
    failed = ", ".join(f"{kind}: {n}" for kind, n in counts["failed_requests"].items())
    print(
        f"requests: {counts['num_requests']}"
        + (f" (without a verdict: {failed})" if failed else "")
    )
    print(
        f"tokens: {counts['input_tokens']} in, {counts['output_tokens']} out;"
        f" cost {counts['cost']:.4f}"
        + (
            f" and at most {counts['possible_further_cost']:.4f} more for"
            f" {counts['num_uncounted_requests']} requests that broke off"
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
        _span(agreement.accuracy_ci_low, agreement.accuracy_ci_high),
        format_number(agreement.kappa, ".3f"),
        _span(agreement.kappa_ci_low, agreement.kappa_ci_high),
    )


def _span(low: float | None, high: float | None) -> str:
    return f"{format_number(low, '.3f')} to {format_number(high, '.3f')}"
