"""From a sweep's answer to one setting: the best one, and the config of the final model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.analysis.answer import read_findings
from orchestrator.analysis.findings import Findings, Panel, Point, WeightMap
from orchestrator.analysis.headline import headline
from orchestrator.foundation.plw_scale import w_p
from orchestrator.record.folder import SweepFolder
from orchestrator.spec.setting_fields import PLW, with_values
from orchestrator.spec.settings_file import read_settings
from orchestrator.spec.sweep_spec import with_absolute_paths
from orchestrator.spec.two_weights import weights_of
from orchestrator.statistics.conclusions_markdown import verdict_title
from orchestrator.statistics.messages import tried_label
from orchestrator.statistics.verdict import Verdict
from orchestrator.watching.lookup import open_sweep
from trainers.config import TrainConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import apply_override, build_config


class BestSetting(BaseModel):
    """The settings of a trial with the PLW to use, and why that one, in words.

    `measure` is the name of the verdict that was gone by, and `trial_ids` are the trials whose
    settings they are, but for the weight, which may lie between those that were tried.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sweep: str
    prompt_loss_weight: float
    reason: str
    measure: str | None
    trial_ids: list[str]
    settings: dict[str, Any]


def best_setting(folder: SweepFolder, measure: str | None, plw: float | None) -> BestSetting:
    """What to train the final model with, as the sweep in `folder` found it.

    The weight is that of the report's answer. The other settings are those of the trials at the
    nearest tried weight, the best observed of them where several were searched. Where the
    completion weight varied too, both weights are those of the best pair of the report's map.

    Args:
        measure: name of the verdict to go by, such as a group, whether it can say which weight is
            best or not; None takes the leading one, which has to, or has to say that PLW does not
            matter.
        plw: the weight to use all the same, with the other settings as found.

    Raises:
        InputError: nothing is scored, the answer names no PLW, or it is one for several models or
            data sets.
    """
    findings = read_findings(folder)
    if findings.lead is None:
        raise InputError(
            Problem(
                message="no trial has scores yet, so there is no setting to take",
                where=str(folder.relative()),
                fix="run the sweep to its end, or train from a config of your own",
            )
        )
    if measure is None and plw is None and findings.weight_map is not None:
        return _best_pair(folder, findings, findings.weight_map)
    verdict = findings.lead.lead if measure is None else _find(findings.verdicts, measure)
    if measure is None and plw is None and not _settles(findings, verdict):
        raise _unnamed(folder, findings)
    weight = verdict.best_plw if plw is None else plw
    panel = next(panel for panel in findings.panels if panel.id == verdict.group)
    point = _nearest(folder, findings, panel, verdict, weight)
    trial = folder.read_trial(point.trial_ids[0])
    assert trial is not None
    chosen, reason = _weight_of(findings, verdict, weight, point)
    if plw is not None:
        chosen, reason = plw, "as asked for with --plw"
    return BestSetting(
        sweep=findings.sweep,
        prompt_loss_weight=chosen,
        reason=reason,
        measure=verdict.name,
        trial_ids=point.trial_ids,
        settings=trial.settings,
    )


def _best_pair(folder: SweepFolder, findings: Findings, pairs: WeightMap) -> BestSetting:
    """The setting with the best pair of prompt and completion weight.

    Raises:
        InputError: no difference between pairs is shown.
    """
    if not pairs.names_best:
        raise _unnamed(folder, findings)
    records = [trial for trial in folder.read_trials() if trial.id in pairs.trial_ids]
    best = [trial for trial in records if weights_of(trial.settings) == pairs.grid.best]
    return BestSetting(
        sweep=findings.sweep,
        prompt_loss_weight=pairs.grid.best[0],
        reason=pairs.sentences[0].rstrip("."),
        measure=findings.panels[0].id,
        trial_ids=[trial.id for trial in best],
        settings=best[0].settings,
    )


def _settles(findings: Findings, verdict: Verdict) -> bool:
    """Whether it names a weight, or says that any of them will do."""
    is_enough = verdict.names_weight or verdict.kind == "no effect"
    return findings.is_about_plw and verdict.best_plw is not None and is_enough


def _weight_of(
    findings: Findings, verdict: Verdict, weight: float | None, point: Point
) -> tuple[float, str]:
    """The weight to train with, and why."""
    reason = f"{verdict_title(verdict)}: {verdict.text}"
    if weight is None or not findings.is_about_plw:
        return point.prompt_loss_weight, f"{reason}; {point.label} is the best observed"
    tried = point.prompt_loss_weight
    # A tried weight is taken as it is, an estimated one with four digits.
    plw = tried if weight == tried else float(f"{weight:.4g}")
    if verdict.kind in ("cannot say", "no effect"):
        located = "the highest mean" if verdict.method == "means" else "the top of the fitted curve"
        near = "" if plw == tried else f", and the nearest tried is {tried_label(tried)}"
        reason += f"; PLW {plw:g} is {located}{near}"
    elif verdict.kind == "tied":
        reason += f"; PLW {plw:g} is taken"
    if point.other_settings:
        reason += f"; with {point.other}, the best observed beside it"
    return plw, reason


def _nearest(
    folder: SweepFolder,
    findings: Findings,
    panel: Panel,
    verdict: Verdict,
    weight: float | None,
) -> Point:
    """The best observed point of the verdict at the tried weight nearest to `weight`, or at any.

    Raises:
        InputError: the points are of several models or data sets.
    """
    own = [
        series for series in panel.series if series.points and verdict.cell in (None, series.cell)
    ]
    if len({series.cell[:2] for series in own if series.cell is not None}) > 1:
        named = [one.name for one in findings.verdicts if one.cell is not None]
        told = (
            f"give --measure with one of {', '.join(named)}"
            if named
            else ("sweep each of them by itself, or write a config of your own")
        )
        raise InputError(
            Problem(
                message="the answer is one for several models or data sets, of which a final "
                "model needs one",
                where=str(folder.relative()),
                fix=told,
            )
        )
    points = [point for series in own for point in series.points]
    if weight is not None:
        gaps = [abs(point.w_p - w_p(weight)) for point in points]
        points = [point for point, gap in zip(points, gaps, strict=True) if gap == min(gaps)]
    pick = min if panel.higher_is_better is False else max
    return pick(points, key=lambda point: point.value)


def final_config(best: BestSetting, *, uses_all: bool, overrides: Sequence[str]) -> TrainConfig:
    """The config of the final model; with `uses_all` nothing is held out or left out.

    Raises:
        InputError: an override or what comes of it breaks a rule.
    """
    settings = with_values(best.settings, {PLW: best.prompt_loss_weight})
    # What only served to watch and stop the trials.
    settings["log_heldout_every_steps"] = None
    return _final(settings, Path(best.sweep), uses_all=uses_all, overrides=overrides)


def _final(
    settings: dict[str, Any], source: Path, *, uses_all: bool, overrides: Sequence[str]
) -> TrainConfig:
    if uses_all:
        settings["data"] |= {"heldout_examples": 0, "train_examples": None}
        settings["log_heldout_every_steps"] = None
    for override in overrides:
        apply_override(settings, override)
    return with_absolute_paths(build_config(TrainConfig, settings, source=source))


def setting_of(
    source: Path,
    *,
    measure: str | None,
    plw: float | None,
    uses_all: bool,
    overrides: Sequence[str],
) -> tuple[TrainConfig, str]:
    """The setting of a sweep's folder, a spec or a train config, and why its PLW is that.

    Raises:
        InputError: it cannot be read, or leaves open which PLW is meant.
    """
    if source.is_dir():
        best = read_best(source, measure, plw)
        return final_config(best, uses_all=uses_all, overrides=overrides), best.reason
    if measure is not None:
        raise InputError(
            Problem(
                message="must be the folder of a sweep for --measure",
                where=str(source),
                fix="give that folder, or leave out --measure",
            )
        )
    found = read_settings(source)
    if plw is None and found.is_weight_searched:
        raise InputError(
            Problem(
                message="the spec searches loss.prompt_loss_weight, so it names none",
                where=str(source),
                fix="give --plw, or the folder of the sweep once it has run",
            )
        )
    settings = found.config.model_dump(mode="json")
    if plw is not None:
        settings = with_values(settings, {PLW: plw})
    reason = f"as in {source.name}" if plw is None else "as asked for with --plw"
    return _final(settings, source, uses_all=uses_all, overrides=overrides), reason


def read_best(root: Path, measure: str | None, plw: float | None) -> BestSetting:
    """`best_setting` of the sweep in the folder `root`."""
    return best_setting(open_sweep(root), measure, plw)


def _find(verdicts: Sequence[Verdict], name: str) -> Verdict:
    found = [one for one in verdicts if one.name == name]
    if found:
        return found[0]
    raise InputError(
        Problem(
            message=f"the sweep has no verdict on {name}",
            where="--measure",
            fix=f"give one of {', '.join(one.name for one in verdicts)}",
        )
    )


def _unnamed(folder: SweepFolder, findings: Findings) -> InputError:
    names = ", ".join(one.name for one in findings.verdicts)
    return InputError(
        Problem(
            message=f"the sweep names no best PLW: {headline(findings)}",
            where=str(folder.relative()),
            fix=f"give --plw, or --measure with one of {names}, or run more trials",
        )
    )
