"""The samples of a report: outputs of any two trials on the same items, side by side."""

from collections.abc import Sequence
from typing import Any

from orchestrator.analysis.sample_table import MAX_MODELS, SampleTable, sample_table
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.report.trial_table import searched_text

_UNTUNED = "untuned"


def sample_section(folder: SweepFolder, scored: Sequence[TrialRecord]) -> dict[str, Any] | None:
    """Return the table of samples and what the page's script needs; None without common items.

    Trials of one base have the same items; those of the base with most trials are shown. The first
    seed of each weight comes first, then the second, and the untuned model last.
    """
    if not scored:
        return None
    bases = [trial.base for trial in scored]
    base = max(bases, key=bases.count)
    trials = _by_repetition([trial for trial in scored if trial.base == base])
    folders = {_label(trial): folder.trial(trial.id) for trial in trials}
    if folder.read_baseline_scores(base) is not None:
        kept = list(folders.items())[: MAX_MODELS - 1]
        folders = dict([*kept, (_UNTUNED, folder.baseline(base))])
    table = sample_table(folders)
    if table is None:
        return None
    return {
        "table": table,
        "num_scored": len(scored),
        "cells": [[_cell(table, item, model) for model in range(len(table.models))]
                  for item in range(len(table.items))],
    }  # fmt: skip


def _by_repetition(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    seen: dict[float, int] = {}
    places: list[tuple[int, TrialRecord]] = []
    for trial in trials:
        place = seen.get(trial.prompt_loss_weight, 0)
        seen[trial.prompt_loss_weight] = place + 1
        places.append((place, trial))
    return [trial for _, trial in sorted(places, key=lambda one: one[0])]


def _label(trial: TrialRecord) -> str:
    other = searched_text(trial)
    parts = [
        f"PLW {trial.prompt_loss_weight:g}",
        *([other] if other else []),
        f"seed {trial.settings['seed']}",
        trial.id,
    ]
    return ", ".join(parts)


def _cell(table: SampleTable, item: int, model: int) -> dict[str, str]:
    """Return value and output of a model on an item, as text."""
    value, output = table.items[item].values[model], table.items[item].outputs[model]
    return {"value": "-" if value is None else f"{value:.3g}", "output": output or ""}
