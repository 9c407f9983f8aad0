"""From a sweep's answer to one setting: the best one, and the config of the final model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.analysis import headline, read_findings
from orchestrator.findings import Findings, Measure, Point
from orchestrator.lookup import open_sweep
from orchestrator.recommend import recommend
from orchestrator.record import SweepFolder
from orchestrator.setting_fields import PLW, with_values
from orchestrator.settings_file import read_settings
from orchestrator.spec import with_absolute_paths
from trainers.config import TrainConfig
from trainers.config_file import apply_override, build_config
from trainers.errors import InputError, Problem


class BestSetting(BaseModel):
    """The settings of a trial with the PLW to use, and why that one, in words.

    `trial_ids` are the trials whose settings they are, but for the weight where `measure` names
    none and it was fitted between those that were tried.
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

    Args:
        measure: id or name of the measure to go by, whether it names a best PLW or not; None
            takes the PLW that all measures which name one agree on.
        plw: the weight to use all the same, with the other settings as found.

    Raises:
        InputError: nothing is scored, no PLW is named, or measures name different ones.
    """
    findings = read_findings(folder)
    measures = [one for one in findings.measures if one.best is not None]
    if not measures:
        raise InputError(
            Problem(
                message="no trial has scores yet, so there is no setting to take",
                where=str(folder.relative()),
                fix="run the sweep to its end, or train from a config of your own",
            )
        )
    if measure is not None:
        found = _of_measure(folder, findings, _find(measures, measure))
    else:
        named = [one for one in measures if one.is_named]
        if not named and plw is None:
            raise _unnamed(folder, findings, measures)
        if plw is None:
            _check_agreement(folder, named)
        found = _of_measure(folder, findings, (named or measures)[0])
        if plw is not None:
            _check_one_setting(folder, measures)
    return found if plw is None else _at(found, plw)


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


def _find(measures: Sequence[Measure], name: str) -> Measure:
    found = [one for one in measures if name in (one.id, one.name)]
    if len(found) == 1:
        return found[0]
    ids = ", ".join(one.id for one in found or measures)
    raise InputError(
        Problem(
            message=(
                f"{len(found)} measures are called {name}"
                if found
                else f"the sweep has no measure {name}"
            ),
            where="--measure",
            fix=f"give one of {ids}",
        )
    )


def _of_measure(folder: SweepFolder, findings: Findings, measure: Measure) -> BestSetting:
    point = measure.best
    assert point is not None
    trial = folder.read_trial(point.trial_ids[0])
    assert trial is not None
    plw, reason = point.prompt_loss_weight, f"{measure.title}: {measure.verdict}"
    if not measure.is_named:
        plw, reason = _fitted(measure, point)
    return BestSetting(
        sweep=findings.sweep,
        prompt_loss_weight=plw,
        reason=reason,
        measure=measure.id,
        trial_ids=point.trial_ids,
        settings=trial.settings,
    )


def _fitted(measure: Measure, best: Point) -> tuple[float, str]:
    """The top of a curve through the points that differ from `best` in the PLW alone."""
    points = [one for one in measure.points if one.other_settings == best.other_settings]
    found = recommend(
        [point.w_p for point in points],
        [point.value for point in points],
        measure.higher_is_better,
    )
    unnamed = f"{measure.title} names no PLW best ({measure.verdict})"
    if found.method == "best tried":
        return best.prompt_loss_weight, f"{unnamed}; {best.label} is the best tried"
    span = ""
    if found.ci_low is not None and found.ci_high is not None:
        span = f", 95% interval of w_p {found.ci_low:.2f} to {found.ci_high:.2f}"
    plw = round(found.plw, 4)
    return plw, f"{unnamed}; PLW {plw:g} is the top of a {found.method}{span}"


def _unnamed(folder: SweepFolder, findings: Findings, measures: Sequence[Measure]) -> InputError:
    ids = ", ".join(one.id for one in measures)
    return InputError(
        Problem(
            message=f"the sweep names no PLW best: {headline(findings)}",
            where=str(folder.relative()),
            fix=f"give --plw, or --measure with one of {ids}, or run more seeds",
        )
    )


def _check_agreement(folder: SweepFolder, named: Sequence[Measure]) -> None:
    """Raise InputError if measures name different points as best."""
    bests = [one.best for one in named if one.best is not None]
    if len({_key(one.base, one.best) for one in named if one.best is not None}) <= 1:
        return
    listed = "; ".join(
        f"{best.label} for {one.phrase}" for one, best in zip(named, bests, strict=True)
    )
    raise InputError(
        Problem(
            message=f"measures name different settings best: {listed}",
            where=str(folder.relative()),
            fix=f"choose one with --measure: {', '.join(one.id for one in named)}",
        )
    )


def _check_one_setting(folder: SweepFolder, measures: Sequence[Measure]) -> None:
    """Raise InputError if --plw alone leaves open which of several settings is meant."""
    bests = {_key(one.base, one.best, with_plw=False) for one in measures if one.best is not None}
    if len(bests) > 1:
        raise InputError(
            Problem(
                message="--plw leaves open which of the other searched settings to take: the "
                "measures' best trials differ in more than the PLW",
                where=str(folder.relative()),
                fix=f"add --measure with one of {', '.join(one.id for one in measures)}",
            )
        )


def _key(base: str, point: Point | None, *, with_plw: bool = True) -> tuple[Any, ...]:
    assert point is not None
    other = sorted((key, str(value)) for key, value in point.other_settings.items())
    return (base, *other, point.prompt_loss_weight if with_plw else None)


def _at(best: BestSetting, plw: float) -> BestSetting:
    return best.model_copy(update={"prompt_loss_weight": plw, "reason": "as asked for with --plw"})
