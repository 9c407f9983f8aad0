"""Write the page of a table of scores: one self-contained HTML file like a sweep's report.

Panels need trial records, so a record is built for each trial in the table.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.analysis.findings import Cost, Findings, Panel, TrialCounts
from orchestrator.analysis.panels import verdict_panels
from orchestrator.record.folder import TrialRecord
from orchestrator.report.plots import panel_svg
from orchestrator.report.rendering import MAX_SETTINGS_SHOWN, embed_plots, templates
from orchestrator.report.tables import verdict_context
from orchestrator.statistics.conclusions import Conclusions
from orchestrator.statistics.conclusions_markdown import headline, headline_conditions
from orchestrator.statistics.table import ScoreRow
from trainers.foundation.files import write_text

_PLW = "loss.prompt_loss_weight"
_RATE = "learning_rate"
_MOST_DECIMALS = 12


class LossPanel(Panel):
    """A panel of losses on any scale, with enough `decimals` to distinguish its values."""

    decimals: int

    def format(self, value: float | None) -> str:
        return "-" if value is None else f"{value:.{self.decimals}f}"


def write_scores_page(
    path: Path, rows: Sequence[ScoreRow], found: Conclusions, *, source: Path, margin: float
) -> None:
    """Write the page of the conclusions `found`.

    Args:
        rows: the scores from which the conclusions were drawn.
        source: the file from which the rows were read.
        margin: the largest difference that does not matter, in the unit of the conclusions.
    """
    findings = _findings(rows, found, source.name)
    panels = findings.panels
    svgs = {panel.id: panel_svg(panel) for panel in panels if panel.points}
    content = {
        "name": source.name,
        "unit": found.unit,
        "headline": headline(found),
        "conditions": headline_conditions(found),
        "plots": embed_plots(panels, svgs),
        **verdict_context(findings),
        # A table of scores has no spec to run.
        "next_command": None,
        "notes": found.notes,
        "facts": _facts(rows, found, source, margin, findings.trials.scored),
    }
    write_text(path, templates().get_template("scores.html.j2").render(content))


def _facts(
    rows: Sequence[ScoreRow], found: Conclusions, source: Path, margin: float, num_trials: int
) -> list[tuple[str, str]]:
    plws = sorted({row.plw for row in rows})
    tried = ", ".join(f"{plw:g}" for plw in plws[:MAX_SETTINGS_SHOWN])
    left_out = len(plws) - MAX_SETTINGS_SHOWN
    is_share = found.unit == "points"
    unit = "point" if is_share and margin == 1 else found.unit
    scale = "shares of the best possible, higher is better" if is_share else "lower is better"
    return [
        ("File", str(source)),
        ("Scores", f"{len(rows)}, {scale}"),
        ("Benchmarks", str(len({row.benchmark for row in rows}))),
        ("Trials", str(num_trials)),
        ("Weights", f"{tried}, and {left_out} more" if left_out > 0 else tried),
        ("Margin: a difference that does not matter", f"{margin:g} {unit}"),
    ]


def _findings(rows: Sequence[ScoreRow], found: Conclusions, name: str) -> Findings:
    """Convert the table to the findings of a sweep."""
    is_share = found.unit == "points"
    named, trials = _make_records(rows)
    panels = verdict_panels(found, named, trials, None, {})
    count = len(trials)
    return Findings(
        sweep=name,
        scores=found if is_share else None,
        losses=None if is_share else found,
        weight_maps=[],
        panels=panels if is_share else [_loss_panel(panel) for panel in panels],
        plws=sorted({row.plw for row in rows}),
        varied=[],
        regularisers=[],
        not_recorded=[],
        unused_scores=[],
        cost=Cost(
            held_hours=0.0, scorer_hours=0.0, gpu_hours=None, money=None, price_per_gpu_hour=None
        ),
        groups_not_measured=[],
        trials=TrialCounts(
            planned=count, done=count, failed=0, stopped=0, unfinished=0, scored=count
        ),
        generation_ratio=None,
        normalizations=[],
        single_seed=any(len(point.seeds) == 1 for panel in panels[:1] for point in panel.points),
        is_demo=False,
    )


def _make_records(rows: Sequence[ScoreRow]) -> tuple[list[ScoreRow], dict[str, TrialRecord]]:
    """Return the rows with a name for each trial, and the records of the trials by name."""
    rates = {row.learning_rate for row in rows}
    conditions = {row.condition for row in rows}
    names: dict[tuple[str, ...], str] = {}
    seeds: dict[str, int] = {}
    named: list[ScoreRow] = []
    trials: dict[str, TrialRecord] = {}
    for row in rows:
        name = names.setdefault(row.trial_key, f"t{len(names)}")
        named.append(replace(row, trial=name))
        if name not in trials:
            seed = seeds.setdefault(row.seed, len(seeds))
            searched: dict[str, Any] = {_PLW: row.plw}
            if len(conditions) > 1:
                searched["condition"] = row.condition
            if len(rates) > 1:
                searched[_RATE] = row.learning_rate
            trials[name] = _make_record(name, row, seed, searched)
    return named, trials


def _make_record(name: str, row: ScoreRow, seed: int, searched: Mapping[str, Any]) -> TrialRecord:
    return TrialRecord(
        id=name,
        base="",
        settings={
            "loss": {"prompt_loss_weight": row.plw},
            "optimizer": {"learning_rate": row.learning_rate},
            "seed": seed,
        },
        searched=dict(searched),
        state="done",
    )


def _loss_panel(panel: Panel) -> LossPanel:
    values = [point.value for point in panel.points]
    spread = max(values) - min(values) if values else 0.0
    # Enough decimals for a hundredth of the largest difference.
    decimals = 3 if spread == 0 else 2 - math.floor(math.log10(spread))
    content: Mapping[str, Any] = panel.model_dump()
    return LossPanel(**content, decimals=min(max(decimals, 0), _MOST_DECIMALS))
