"""Convert a sweep's answer to the description, tags and metrics of its parent run in MLflow.

Metrics are `answer/<verdict>_<value>`, such as `answer/multiple_choice_best_plw`, tags
`answer_<verdict>`. MLflow sorts by name, so the common prefix keeps them together.
"""

import re
from collections.abc import Sequence

from orchestrator.analysis.findings import Findings
from orchestrator.analysis.headline import conditions, headline
from orchestrator.report.tables import shared_basis, verdict_grid, verdict_rows
from orchestrator.statistics.conclusions_markdown import LEGEND
from orchestrator.tracking.metric_names import with_intervals

_PREFIX, _TAG_PREFIX = "answer", "answer_"
_INVALID_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\- /]+")


def answer_note(findings: Findings) -> str:
    """Return the description of the sweep's run, in Markdown."""
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
    """Return the headline as `answer`, each verdict as `answer_<verdict>`, and trial counts."""
    tags = {"answer": headline(findings)}
    tags |= {f"{_TAG_PREFIX}{_name(verdict.name)}": verdict.text for verdict in findings.verdicts}
    counts = findings.trials.model_dump().items()
    return tags | {f"plw.trials_{name}": str(count) for name, count in counts}


def answer_metrics(findings: Findings) -> dict[str, float]:
    """Return the p-value of each verdict and, if it names weights, the best PLW and its gain.

    The best PLW and the gain have intervals. An interval with several pieces, or with tied weights,
    is reported from its lowest to its highest weight.
    """
    found: dict[str, float] = {}
    for verdict in findings.verdicts if findings.is_about_plw else ():
        start = _name(verdict.name)
        found |= _metric(f"{start}_p_value", verdict.adjusted_p_value)
        if not verdict.names_weight:
            continue
        pieces = verdict.pieces
        found |= _metric(f"{start}_best_plw", verdict.best_plw, pieces[0][0], pieces[-1][1])
        found |= _metric(f"{start}_nearest_tried_plw", verdict.nearest_plw)
        # The reference weight has no gain over itself.
        if verdict.best_plw != verdict.reference_plw:
            found |= _metric(f"{start}_gain", verdict.gain, verdict.gain_low, verdict.gain_high)
    return found


def is_answer_tag(name: str) -> bool:
    """Return whether `answer_tags` writes tags with such a name."""
    return name.startswith(_TAG_PREFIX)


def is_answer_metric(name: str) -> bool:
    """Return whether `answer_metrics` writes metrics with such a name."""
    return name.startswith((f"{_PREFIX}/", f"interval/{_PREFIX}_"))


def _metric(
    name: str, value: float | None, low: float | None = None, high: float | None = None
) -> dict[str, float]:
    return with_intervals(_PREFIX, name, value, {"_ci_low": low, "_ci_high": high})


def _name(name: str) -> str:
    """Return `name` with each character replaced that MLflow does not allow."""
    return _INVALID_IN_NAMES.sub("_", name)
