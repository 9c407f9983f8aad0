"""Select the best setting of a sweep, and build the config of the final model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.analysis.findings import Findings, Panel, Point, WeightMap
from orchestrator.analysis.headline import headline
from orchestrator.analysis.sweep_findings import read_findings
from orchestrator.foundation.plw_scale import w_p
from orchestrator.monitoring.lookup import open_sweep
from orchestrator.record.folder import SweepFolder
from orchestrator.spec.setting_fields import PLW, with_values
from orchestrator.spec.settings_file import read_settings
from orchestrator.spec.sweep_spec import with_absolute_paths
from orchestrator.spec.two_weights import loss_weights_of
from orchestrator.statistics.conclusions_markdown import verdict_title
from orchestrator.statistics.messages import format_tried_plw
from orchestrator.statistics.verdict import Verdict
from trainers.config import TrainConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import apply_override, build_config


class BestSetting(BaseModel):
    """The selected PLW, the reason for it, and the settings of a trial.

    `measure` is the name of the verdict used. The settings are those of the trials `trial_ids`,
    except for the PLW, which may lie between tried values. `num_ranks` is that of a trial.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sweep: str
    prompt_loss_weight: float
    reason: str
    measure: str | None
    trial_ids: list[str]
    settings: dict[str, Any]
    num_ranks: int = 1


def best_setting(folder: SweepFolder, measure: str | None, plw: float | None) -> BestSetting:
    """Return the setting for the final model according to the sweep in `folder`.

    The PLW is the one that the report names. The other settings are those of the best trials at the
    nearest tried weight; if only one of several settings was tried there, as in a search, those of
    the best trials at any weight. If the completion weight was searched too, both weights are those
    of the best pair in the report's map.

    Args:
        measure: name of the verdict to use, such as a group, even if it names no best weight. None:
            use the leading verdict, which must name a weight or find that PLW does not matter.
        plw: use this weight instead; the other settings are selected in the same way.

    Raises:
        InputError: no trial has scores, the verdict names no PLW, or it covers several models or
            data sets.
    """
    findings = read_findings(folder)
    if findings.lead is None:
        raise InputError(
            Problem(
                message="no trial has scores yet, so there is no best setting",
                where=str(folder.relative()),
                fix="finish the sweep, or train from a config",
            )
        )
    if measure is None and plw is None and findings.weight_map is not None:
        return _best_pair(folder, findings, findings.weight_map)
    verdict = findings.lead.lead if measure is None else _find_verdict(findings.verdicts, measure)
    if measure is None and plw is None and not _is_conclusive(findings, verdict):
        raise _no_best_plw_error(folder, findings)
    weight = verdict.best_plw if plw is None else plw
    panel = next(panel for panel in findings.panels if panel.id == verdict.group)
    points = _compared_points(folder, findings, panel, verdict)
    nearest = _at_nearest_weight(points, weight)
    point = _best_point(points, nearest, panel)
    trial = folder.read_trial(point.trial_ids[0])
    assert trial is not None
    chosen, reason = _choose_plw(findings, panel, verdict, weight, nearest, point)
    if plw is not None:
        chosen, reason = plw, "set with --plw"
    return BestSetting(
        sweep=findings.sweep,
        prompt_loss_weight=chosen,
        reason=reason,
        measure=verdict.name,
        trial_ids=point.trial_ids,
        settings=trial.settings,
        num_ranks=_num_ranks(folder),
    )


def _best_pair(folder: SweepFolder, findings: Findings, pairs: WeightMap) -> BestSetting:
    """Return the setting with the best pair of prompt and completion weight.

    Raises:
        InputError: no pair is significantly better than another.
    """
    if not pairs.names_best:
        raise _no_best_plw_error(folder, findings)
    records = [trial for trial in folder.read_trials() if trial.id in pairs.trial_ids]
    best = [trial for trial in records if loss_weights_of(trial.settings) == pairs.grid.best]
    return BestSetting(
        sweep=findings.sweep,
        prompt_loss_weight=pairs.grid.best[0],
        reason=pairs.sentences[0].rstrip("."),
        measure=findings.panels[0].id,
        trial_ids=[trial.id for trial in best],
        settings=best[0].settings,
        num_ranks=_num_ranks(folder),
    )


def _num_ranks(folder: SweepFolder) -> int:
    resources = folder.read_sweep().spec.get("resources") or {}
    return int(resources.get("workers_per_trial") or 1)


def _is_conclusive(findings: Findings, verdict: Verdict) -> bool:
    """Return whether the verdict names a weight, or finds no effect of the weight."""
    is_enough = verdict.names_weight or verdict.kind == "no effect"
    return findings.is_about_plw and verdict.best_plw is not None and is_enough


def _choose_plw(
    findings: Findings,
    panel: Panel,
    verdict: Verdict,
    weight: float | None,
    nearest: Sequence[Point],
    point: Point,
) -> tuple[float, str]:
    """Return the weight for the final model, and the reason.

    Args:
        nearest: points at the tried weight nearest to `weight`.
        point: the point with the other settings.
    """
    reason = f"{verdict_title(verdict)}: {verdict.text}"
    if weight is None or not findings.is_about_plw:
        return point.prompt_loss_weight, f"{reason}; {point.label} is the best observed"
    tried = nearest[0].prompt_loss_weight
    # A tried weight is used unchanged, an estimated one is rounded to four digits.
    plw = tried if weight == tried else float(f"{weight:.4g}")
    if verdict.kind in ("cannot say", "no effect"):
        is_loss = panel.higher_is_better is False
        mean, extremum = ("lowest", "minimum") if is_loss else ("highest", "maximum")
        located = (
            f"the {mean} mean"
            if verdict.method == "means"
            else f"the {extremum} of the fitted curve"
        )
        near = "" if plw == tried else f", and the nearest tried is {format_tried_plw(tried)}"
        reason += f"; PLW {plw:g} is {located}{near}"
    elif verdict.kind == "tied":
        reason += f"; using PLW {plw:g}"
    if point.other_settings:
        where = (
            "this weight"
            if point in nearest
            else f"any weight (at PLW {point.prompt_loss_weight:g})"
        )
        reason += f"; with {point.other}, the best observed at {where}"
    return plw, reason


def _compared_points(
    folder: SweepFolder, findings: Findings, panel: Panel, verdict: Verdict
) -> list[Point]:
    """Return the points that the verdict is about.

    Raises:
        InputError: the verdict covers several models or data sets.
    """
    series_of_verdict = [
        series
        for series in panel.series
        if series.points
        and (series.is_compared if verdict.cell is None else series.cell == verdict.cell)
    ]
    if len({series.cell[:2] for series in series_of_verdict if series.cell is not None}) > 1:
        named = [one.name for one in findings.verdicts if one.cell is not None]
        fix = (
            f"give --measure with one of {', '.join(named)}"
            if named
            else "run a sweep for each of them, or write a config"
        )
        raise InputError(
            Problem(
                message="the answer is for several models or data sets; a final model needs one "
                "of them",
                where=str(folder.relative()),
                fix=fix,
            )
        )
    return [point for series in series_of_verdict for point in series.points]


def _at_nearest_weight(points: Sequence[Point], weight: float | None) -> list[Point]:
    """Return the points at the tried weight nearest to `weight`; all points if it is None."""
    if weight is None:
        return list(points)
    gaps = [abs(point.w_p - w_p(weight)) for point in points]
    return [point for point, gap in zip(points, gaps, strict=True) if gap == min(gaps)]


def _best_point(points: Sequence[Point], nearest: Sequence[Point], panel: Panel) -> Point:
    """Return the best observed of the `nearest` points.

    If they have one setting where others have other ones, as in a search, nothing was compared at
    that weight: return the best of all points.
    """
    is_alone = len(nearest) == 1
    has_others = any(point.other_settings != nearest[0].other_settings for point in points)
    pick = min if panel.higher_is_better is False else max
    return pick(points if is_alone and has_others else nearest, key=lambda point: point.value)


def final_config(best: BestSetting, *, uses_all: bool, overrides: Sequence[str]) -> TrainConfig:
    """Return the config of the final model; with `uses_all`, it trains on all examples.

    Raises:
        InputError: an override or the resulting config is invalid.
    """
    settings = with_values(best.settings, {PLW: best.prompt_loss_weight})
    # Trials are monitored and stopped by the held-out loss; a final model does not need it.
    settings["log_heldout_every_steps"] = None
    return _build_config(settings, Path(best.sweep), uses_all=uses_all, overrides=overrides)


def find_trained(folder: SweepFolder, best: BestSetting) -> str | None:
    """Return the id of a trial with the setting and its seed; None if the sweep has none."""
    for trial_id in best.trial_ids:
        trial = folder.read_trial(trial_id)
        if (
            trial is not None
            and trial.prompt_loss_weight == best.prompt_loss_weight
            and trial.settings["seed"] == best.settings["seed"]
        ):
            return trial_id
    return None


def _build_config(
    settings: dict[str, Any], source: Path, *, uses_all: bool, overrides: Sequence[str]
) -> TrainConfig:
    if uses_all:
        settings["data"] |= {"heldout_examples": 0, "train_examples": None}
        settings["log_heldout_every_steps"] = None
        settings["export_best_every_steps"] = None
    for override in overrides:
        apply_override(settings, override)
    return with_absolute_paths(build_config(TrainConfig, settings, source=source))


def load_setting(
    source: Path | str | None,
    *,
    measure: str | None,
    plw: float | None,
    uses_all: bool,
    overrides: Sequence[str],
) -> tuple[TrainConfig, str]:
    """Return the config from a sweep, spec or train config, and the reason for its PLW.

    Args:
        source: the name or folder of a sweep, None for the latest, or a YAML file.

    Raises:
        InputError: the source is invalid, or does not determine a PLW.
    """
    if source is None or not _is_settings_file(source):
        best = best_setting(open_sweep(source), measure, plw)
        return final_config(best, uses_all=uses_all, overrides=overrides), best.reason
    source = Path(source)
    if measure is not None:
        raise InputError(
            Problem(
                message="--measure requires a sweep",
                where=str(source),
                fix="give the name or folder of a sweep, or remove --measure",
            )
        )
    found = read_settings(source)
    if plw is None and found.is_weight_searched:
        raise InputError(
            Problem(
                message="the spec searches loss.prompt_loss_weight and does not set it",
                where=str(source),
                fix="give --plw, or the folder of the sweep once it has run",
            )
        )
    settings = found.config.model_dump(mode="json")
    if plw is not None:
        settings = with_values(settings, {PLW: plw})
    reason = f"as in {source.name}" if plw is None else "set with --plw"
    return _build_config(settings, source, uses_all=uses_all, overrides=overrides), reason


def _is_settings_file(source: Path | str) -> bool:
    path = Path(source)
    return path.is_file() or (path.suffix in (".yaml", ".yml") and not path.is_dir())


def read_best_setting(root: Path, measure: str | None, plw: float | None) -> BestSetting:
    """Return the best setting of the sweep in the folder `root`."""
    return best_setting(open_sweep(root), measure, plw)


def _find_verdict(verdicts: Sequence[Verdict], name: str) -> Verdict:
    found = [one for one in verdicts if one.name == name]
    if found:
        return found[0]
    raise InputError(
        Problem(
            message=f"the sweep has no verdict {name}",
            where="--measure",
            fix=f"give one of {', '.join(one.name for one in verdicts)}",
        )
    )


def _no_best_plw_error(folder: SweepFolder, findings: Findings) -> InputError:
    names = ", ".join(one.name for one in findings.verdicts)
    return InputError(
        Problem(
            message=f"the sweep names no best PLW: {headline(findings)}",
            where=str(folder.relative()),
            fix=f"give --plw, or --measure with one of {names}, or run more trials",
        )
    )
