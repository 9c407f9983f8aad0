"""The sweep's answer as MLflow shows it: the parent run's description, tags and metrics.

Names begin with `answer_`, so that they stand together where MLflow sorts by name, and go on with
what the verdict is on: `answer_multiple_choice_best_plw`.
"""

import re

from orchestrator.analysis.findings import Findings
from orchestrator.analysis.headline import headline
from orchestrator.report.answer import verdict_rows

_NO_NAME = re.compile(r"[^A-Za-z0-9_.\- /]+")


def answer_note(findings: Findings) -> str:
    """The text that the page of the sweep's run opens with, in Markdown."""
    rows = verdict_rows(findings)
    if not rows:
        return headline(findings)
    lines = ["| Scores | Verdict | Gain (95%) | Trials |", "|---|---|---|---:|"]
    lines += [
        f"| {row['scores']} ({row['unit']}) | {row['verdict']} | {row['gain']} | {row['trials']} |"
        for row in rows
    ]
    told = "The whole report is `report.html` among the artifacts."
    return "\n\n".join([headline(findings), "\n".join(lines), told])


def answer_tags(findings: Findings) -> dict[str, str]:
    """`answer` with the headline, `answer_<verdict>` with each verdict, and counts of trials."""
    tags = {"answer": headline(findings)}
    tags |= {f"answer_{_name(verdict.name)}": verdict.text for verdict in findings.verdicts}
    counts = findings.trials.model_dump().items()
    return tags | {f"plw.trials_{name}": str(count) for name, count in counts}


def answer_metrics(findings: Findings) -> dict[str, float]:
    """The best PLW, its interval and its gain with that one's, of each verdict that has them.

    An interval in two pieces is given from its lowest to its highest weight.
    """
    found: dict[str, float | None] = {}
    for verdict in findings.verdicts if findings.is_about_plw else ():
        if verdict.best_plw is None or not verdict.pieces:
            continue
        start = f"answer_{_name(verdict.name)}"
        found |= {
            f"{start}_best_plw": verdict.best_plw,
            f"{start}_best_plw_ci_low": verdict.pieces[0][0],
            f"{start}_best_plw_ci_high": verdict.pieces[-1][1],
            f"{start}_gain": verdict.gain,
            f"{start}_gain_ci_low": verdict.gain_low,
            f"{start}_gain_ci_high": verdict.gain_high,
            f"{start}_p_value": verdict.adjusted_p_value,
        }
    return {name: value for name, value in found.items() if value is not None}


def _name(name: str) -> str:
    """What MLflow takes as part of a name."""
    return _NO_NAME.sub("_", name)
