"""Write the report of a sweep: report.md, one self-contained report.html, and the plots.

The report is computed from the files in the sweep's folder, so it can be written again at any time,
even while trials run.
"""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.results.scores import ScoreCard
from orchestrator.analysis.caveats import caveats, overlap_caveats, score_caveats
from orchestrator.analysis.findings import Findings
from orchestrator.analysis.headline import conditions, headline
from orchestrator.analysis.sweep_findings import read_findings
from orchestrator.foundation.redaction import flatten, redact, to_yaml
from orchestrator.record.baselines import baseline_labels
from orchestrator.record.folder import SweepFolder, SweepRecord, TrialRecord
from orchestrator.report.plots import ALL_PANELS, file_stem, write_plots
from orchestrator.report.rendering import MAX_SETTINGS_SHOWN, embed_plots, templates
from orchestrator.report.sample_section import sample_section
from orchestrator.report.tables import (
    cost_lines,
    panel_table,
    regulariser_rows,
    verdict_context,
    verdict_grid,
)
from orchestrator.report.trial_table import (
    column_title,
    failures,
    score_columns,
    searched_text,
    trial_rows,
    untuned_rows,
)
from orchestrator.report.weight_map_plot import write_weight_maps
from orchestrator.report.weight_map_tables import f_test_rows, map_alt_text, pair_rows
from orchestrator.statistics.aggregates import add_aggregates
from trainers.foundation.files import write_text


def write_report(folder: SweepFolder) -> Path:
    """Write the plots, report.md and report.html of a finished or running sweep.

    Returns the path of report.html.
    """
    findings = read_findings(folder)
    plots = write_plots(findings.panels, folder.plots, over_plw=findings.is_about_plw)
    maps = write_weight_maps(findings.weight_maps, folder.plots)
    context = _context(folder, findings, plots) | {"weight_maps": _maps(findings, maps)}
    for path in (folder.report_md, folder.report_html):
        template = templates().get_template(f"{path.name}.j2")
        write_text(path, template.render(context))
    return folder.report_html


def report_json(folder: SweepFolder) -> dict[str, Any]:
    """Return the report as JSON data: headline, conditions, findings, trials and sweep."""
    sweep = folder.read_sweep()
    findings = read_findings(folder)
    untuned, cards = {}, {}
    for base in sweep.bases:
        card = folder.read_baseline_scores(base.key)
        cards[base.key] = card
        untuned[base.key] = _dumped(card, None)
    trials = []
    for trial in folder.read_trials():
        scores = _dumped(folder.read_scores(trial.id), cards.get(trial.base))
        trials.append({**trial.model_dump(mode="json"), "scores": scores})
    content = {
        "headline": headline(findings),
        "conditions": conditions(findings),
        "findings": findings.model_dump(mode="json"),
        "untuned": untuned,
        "trials": trials,
        "sweep": sweep.model_dump(mode="json"),
    }
    redacted: dict[str, Any] = redact(content)
    return redacted


def _dumped(card: ScoreCard | None, untuned: ScoreCard | None) -> list[dict[str, Any]] | None:
    """Return the scores of a card, including aggregates."""
    if card is None:
        return None
    scores: list[dict[str, Any]] = add_aggregates(card, untuned).model_dump(mode="json")["scores"]
    return scores


def _context(folder: SweepFolder, findings: Findings, plots: Mapping[str, Path]) -> dict[str, Any]:
    sweep = folder.read_sweep()
    trials = folder.read_trials()
    untuned = {base.key: folder.read_baseline_scores(base.key) for base in sweep.bases}
    cards_by_trial = [
        (trial, _aggregated(folder.read_scores(trial.id), untuned.get(trial.base)))
        for trial in trials
    ]
    untuned = {key: _aggregated(card, None) for key, card in untuned.items()}
    columns = score_columns([*(card for _, card in cards_by_trial), *untuned.values()])
    labels = baseline_labels(sweep.bases)
    return {
        "sweep": sweep,
        "findings": findings,
        "headline": headline(findings),
        "conditions": conditions(findings),
        "has_plots": ALL_PANELS in plots,
        **_findings_context(findings, plots),
        "has_other": any(searched_text(trial) for trial in trials),
        "columns": [column_title(score) for score in columns.values()],
        "trials": [*trial_rows(cards_by_trial, columns), *untuned_rows(labels, untuned, columns)],
        "failures": failures(trials),
        "caveats": redact(
            [
                *caveats(sweep, findings, None not in untuned.values()),
                *score_caveats(columns.values()),
                *overlap_caveats(labels, _cards_by_base(cards_by_trial, untuned)),
            ]
        ),
        "samples": sample_section(folder, [trial for trial, card in cards_by_trial if card]),
        "cost": cost_lines(findings.cost),
        "command": redact(str(sweep.environment.get("command") or sweep.command)),
        "next_command": redact(_next_command(sweep, findings)),
        "spec": to_yaml(sweep.spec),
        "circumstances": [
            (title, [(key, str(value)) for key, value in flatten(redact(section))])
            for title, section in _provenance(sweep, trials)
        ],
    }


def _next_command(sweep: SweepRecord, findings: Findings) -> str | None:
    """Return the command that runs exactly the next trials, if one does."""
    runs = findings.lead.next_runs if findings.lead is not None else ()
    more = sweep.with_next_seeds([run.seed for run in runs])
    return None if more is None else more.command


def _findings_context(findings: Findings, plots: Mapping[str, Path]) -> dict[str, Any]:
    """Return the template variables that depend on the findings alone."""
    mechanism, benchmarks = findings.of_kind("mechanism"), findings.of_kind("benchmark")
    shown = {
        "answer": findings.of_kind("answer"),
        "mechanism": mechanism,
        "benchmark": benchmarks,
    }
    verdict = verdict_context(findings)
    svgs = {panel_id: path.read_bytes() for panel_id, path in plots.items()}
    return {
        "plots": {
            kind: embed_plots(panels, svgs, over_plw=findings.is_about_plw)
            for kind, panels in shown.items()
        },
        "mechanism_files": [f"{file_stem(panel.id)}.png" for panel in mechanism],
        **verdict,
        "verdict_grid": verdict_grid(verdict["verdicts"], verdict["trial_counts"]),
        "regularisers": regulariser_rows(findings),
        "mechanism_table": panel_table(mechanism, MAX_SETTINGS_SHOWN),
        "benchmark_table": panel_table(benchmarks, MAX_SETTINGS_SHOWN),
    }


def _maps(findings: Findings, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the plot, sentences and tables of each map of prompt and completion weights."""
    return [
        {
            "title": f"{found.scores}{f', {found.label}' if found.label else ''}",
            "file": path.with_suffix(".png").name,
            "alt": map_alt_text(found),
            "data": base64.b64encode(path.read_bytes()).decode(),
            "sentences": found.sentences,
            "tests": f_test_rows(found),
            "pairs": pair_rows(found, MAX_SETTINGS_SHOWN),
        }
        for found, path in zip(findings.weight_maps, paths, strict=True)
    ]


def _provenance(
    sweep: SweepRecord, trials: Sequence[TrialRecord]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sweep's models, data, environment and devices, each with a title."""
    labels = baseline_labels(sweep.bases)
    for base in sweep.bases:
        suffix = f" of {labels[base.key]}" if labels[base.key] else ""
        yield f"Model{suffix}", base.model
        for data in base.data:
            yield f"Data{suffix}", data
    yield "Environment", sweep.environment
    devices = Counter(trial.device for trial in trials if trial.device is not None)
    yield "Trials by device of their first worker", dict(devices)


def _aggregated(card: ScoreCard | None, untuned: ScoreCard | None) -> ScoreCard | None:
    return None if card is None else add_aggregates(card, untuned)


def _cards_by_base(
    cards_by_trial: Sequence[tuple[TrialRecord, ScoreCard | None]],
    untuned: Mapping[str, ScoreCard | None],
) -> dict[str, list[ScoreCard]]:
    """Return all score cards, including those of untuned models, grouped by base key."""
    found: dict[str, list[ScoreCard]] = {key: [] for key in untuned}
    for base, card in [*((trial.base, card) for trial, card in cards_by_trial), *untuned.items()]:
        if card is not None:
            found.setdefault(base, []).append(card)
    return found
