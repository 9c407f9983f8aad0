"""The sweep's answer as MLflow shows it: the parent run's description, tags and metrics.

Names begin with `answer_`, so that MLflow, which sorts by name, shows them together; the name of
the verdict follows: `answer_multiple_choice_best_plw`.
"""

import re
from collections.abc import Sequence

from orchestrator.analysis.findings import Findings
from orchestrator.analysis.headline import conditions, headline
from orchestrator.report.answer import shared_basis, verdict_grid, verdict_rows
from orchestrator.statistics.conclusions_markdown import LEGEND

_NO_NAME = re.compile(r"[^A-Za-z0-9_.\- /]+")


def answer_note(findings: Findings) -> str:
    """The text that the page of the sweep's run opens with, in Markdown."""
    parts = [headline(findings), *conditions(findings)]
    rows = verdict_rows(findings)
    if rows:
        basis, counts = shared_basis(rows)
        parts += [basis] if basis else []
        parts += [_table(*verdict_grid(rows, counts)), LEGEND]
        parts.append("The whole report is `report.html` among the artifacts.")
    return "\n\n".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def answer_tags(findings: Findings) -> dict[str, str]:
    """`answer` with the headline, `answer_<verdict>` with each verdict, and counts of trials."""
    tags = {"answer": headline(findings)}
    tags |= {f"answer_{_name(verdict.name)}": verdict.text for verdict in findings.verdicts}
    counts = findings.trials.model_dump().items()
    return tags | {f"plw.trials_{name}": str(count) for name, count in counts}


def answer_metrics(findings: Findings) -> dict[str, float]:
    """Of each verdict its p-value and, where it names weights, the best PLW, its interval and gain.

    The interval of several pieces, or of tied weights, is from its lowest to its highest weight.
    """
    found: dict[str, float | None] = {}
    for verdict in findings.verdicts if findings.is_about_plw else ():
        start = f"answer_{_name(verdict.name)}"
        found[f"{start}_p_value"] = verdict.adjusted_p_value
        if not verdict.names_weight:
            continue
        found |= {
            f"{start}_best_plw": verdict.best_plw,
            f"{start}_best_plw_ci_low": verdict.pieces[0][0],
            f"{start}_best_plw_ci_high": verdict.pieces[-1][1],
            f"{start}_nearest_tried_plw": verdict.nearest_plw,
        }
        # The lowest weight gains nothing over itself.
        if verdict.best_plw != verdict.reference_plw:
            found |= {
                f"{start}_gain": verdict.gain,
                f"{start}_gain_ci_low": verdict.gain_low,
                f"{start}_gain_ci_high": verdict.gain_high,
            }
    return {name: value for name, value in found.items() if value is not None}


def _name(name: str) -> str:
    """What MLflow takes as part of a name."""
    return _NO_NAME.sub("_", name)
