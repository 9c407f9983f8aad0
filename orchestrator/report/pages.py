"""The report of a sweep: report.md, one self-contained report.html, and the plots.

A view of the files in the sweep's folder: writing it again is always safe, also while trials run.
"""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.results.scores import ScoreCard
from orchestrator.analysis.answer import read_findings
from orchestrator.analysis.caveats import caveats, overlap_caveats, score_caveats
from orchestrator.analysis.findings import Findings
from orchestrator.analysis.headline import conditions, headline
from orchestrator.foundation.redaction import flatten, redact, to_yaml
from orchestrator.record.bases import base_labels
from orchestrator.record.folder import SweepFolder, SweepRecord, TrialRecord
from orchestrator.report.answer import (
    cost_lines,
    front_rows,
    means_note,
    next_lines,
    next_reason,
    panel_table,
    prospect_line,
    regulariser_rows,
    shared_basis,
    verdict_grid,
    verdict_rows,
)
from orchestrator.report.plots import ALL_PANELS, file_stem, write_plots
from orchestrator.report.rendering import MAX_SETTINGS_TOLD, pictures, templates
from orchestrator.report.trials import (
    column_title,
    failures,
    score_columns,
    searched_text,
    trial_rows,
    untuned_rows,
)
from orchestrator.report.weight_map_plot import write_weight_maps
from orchestrator.report.weight_map_tables import map_alt_text, pair_rows, test_rows
from orchestrator.statistics.aggregates import with_aggregates
from orchestrator.statistics.conclusions_markdown import LEGEND
from trainers.foundation.files import write_text


def write_report(folder: SweepFolder) -> Path:
    """Write the plots, report.md and report.html of a sweep, finished or not.

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
    """The report's content as JSON data: headline and its conditions, findings, trials, sweep."""
    sweep = folder.read_sweep()
    findings = read_findings(folder)
    untuned, cards = {}, {}
    for base in sweep.bases:
        card = folder.read_base_scores(base.key)
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
    """The scores of a card, aggregates and all."""
    if card is None:
        return None
    scores: list[dict[str, Any]] = with_aggregates(card, untuned).model_dump(mode="json")["scores"]
    return scores


def _context(folder: SweepFolder, findings: Findings, plots: Mapping[str, Path]) -> dict[str, Any]:
    sweep = folder.read_sweep()
    trials = folder.read_trials()
    untuned = {base.key: folder.read_base_scores(base.key) for base in sweep.bases}
    tried = [
        (trial, _aggregated(folder.read_scores(trial.id), untuned.get(trial.base)))
        for trial in trials
    ]
    untuned = {key: _aggregated(card, None) for key, card in untuned.items()}
    columns = score_columns([*(card for _, card in tried), *untuned.values()])
    labels = base_labels(sweep.bases)
    return {
        "sweep": sweep,
        "findings": findings,
        "headline": headline(findings),
        "conditions": conditions(findings),
        "has_plots": ALL_PANELS in plots,
        **_answer_context(findings, plots),
        "has_other": any(searched_text(trial) for trial in trials),
        "columns": [column_title(score) for score in columns.values()],
        "trials": [*trial_rows(tried, columns), *untuned_rows(labels, untuned, columns)],
        "failures": failures(trials),
        "caveats": redact(
            [
                *caveats(sweep, findings, None not in untuned.values()),
                *score_caveats(columns.values()),
                *overlap_caveats(labels, _cards_by_base(tried, untuned)),
            ]
        ),
        "cost": cost_lines(findings.cost),
        "command": redact(str(sweep.environment.get("command") or f"plw sweep {sweep.spec_path}")),
        "spec": to_yaml(sweep.spec),
        "circumstances": [
            (title, [(key, str(value)) for key, value in flatten(redact(section))])
            for title, section in _circumstances(sweep, trials)
        ],
    }


def _answer_context(findings: Findings, plots: Mapping[str, Path]) -> dict[str, Any]:
    """What the report shows of the findings, apart from the trials."""
    mechanism, benchmarks = findings.of_kind("mechanism"), findings.of_kind("benchmark")
    shown = {
        "answer": findings.of_kind("answer"),
        "mechanism": mechanism,
        "benchmark": benchmarks,
    }
    verdicts = verdict_rows(findings)
    basis, counts = shared_basis(verdicts)
    svgs = {panel_id: path.read_bytes() for panel_id, path in plots.items()}
    return {
        "plots": {kind: pictures(panels, svgs) for kind, panels in shown.items()},
        "mechanism_files": [f"{file_stem(panel.id)}.png" for panel in mechanism],
        "verdicts": verdicts,
        "shared_basis": basis,
        "trial_counts": counts,
        "verdict_grid": verdict_grid(verdicts, counts),
        "legend": LEGEND,
        "next_reason": next_reason(findings),
        "next_runs": next_lines(findings),
        "prospect": prospect_line(findings),
        "means_note": means_note(shown["answer"]),
        "front": front_rows(findings),
        "regularisers": regulariser_rows(findings),
        "group_table": panel_table(shown["answer"], MAX_SETTINGS_TOLD),
        "mechanism_table": panel_table(mechanism, MAX_SETTINGS_TOLD),
        "benchmark_table": panel_table(benchmarks, MAX_SETTINGS_TOLD),
    }


def _maps(findings: Findings, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Of each map of prompt and completion weight: picture, sentences and tables."""
    return [
        {
            "title": f"{found.scores}{f', {found.label}' if found.label else ''}",
            "file": path.with_suffix(".png").name,
            "alt": map_alt_text(found),
            "data": base64.b64encode(path.read_bytes()).decode(),
            "sentences": found.sentences,
            "tests": test_rows(found),
            "pairs": pair_rows(found, MAX_SETTINGS_TOLD),
        }
        for found, path in zip(findings.weight_maps, paths, strict=True)
    ]


def _circumstances(
    sweep: SweepRecord, trials: Sequence[TrialRecord]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the sweep ran on, each with its title."""
    labels = base_labels(sweep.bases)
    for base in sweep.bases:
        of = f" of {labels[base.key]}" if labels[base.key] else ""
        yield f"Model{of}", base.model
        for data in base.data:
            yield f"Data{of}", data
    yield "Environment", sweep.environment
    devices = Counter(trial.device for trial in trials if trial.device is not None)
    yield "Trials trained on, by device of their first worker", dict(devices)


def _aggregated(card: ScoreCard | None, untuned: ScoreCard | None) -> ScoreCard | None:
    return None if card is None else with_aggregates(card, untuned)


def _cards_by_base(
    tried: Sequence[tuple[TrialRecord, ScoreCard | None]],
    untuned: Mapping[str, ScoreCard | None],
) -> dict[str, list[ScoreCard]]:
    """All cards there are, those of the untuned models too, by the keys of their bases."""
    found: dict[str, list[ScoreCard]] = {key: [] for key in untuned}
    for base, card in [*((trial.base, card) for trial, card in tried), *untuned.items()]:
        if card is not None:
            found.setdefault(base, []).append(card)
    return found
