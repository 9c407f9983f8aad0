"""Find a sweep, a trial, or the MLflow page of a sweep."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from orchestrator.foundation.shell_words import shell_path
from orchestrator.monitoring.command_hints import RUNS_VARIABLE, missing_sweep_fix
from orchestrator.record.folder import (
    SweepFolder,
    TrackingRecord,
    check_records,
    check_sweep_record,
)
from orchestrator.record.reader import label
from orchestrator.spec.search_fields import OBJECTIVES
from orchestrator.tracking.metric_names import score_metric
from orchestrator.tracking.uri import check_port, is_web, ui_command
from trainers.foundation.counts import format_count
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.suggestions import did_you_mean

MAX_IDS_NAMED = 20
# Names in the place of a trial: the log of the sweep, the untuned model.
SWEEP, UNTUNED = "sweep", "untuned"
LOG_NAMES = (SWEEP, UNTUNED)


def runs_folder() -> Path:
    """Return the folder in which sweeps are found by name: runs/, on a cluster its storage."""
    return Path(os.environ.get(RUNS_VARIABLE) or "runs")


def find_sweep(sweep: Path | str | None = None) -> SweepFolder:
    """Return a sweep by folder or by name; None: the latest one. Check only its sweep.json.

    A folder of this path takes precedence over a sweep of this name in `runs_folder`.

    Raises:
        InputError: there is no such sweep, or sweep.json is damaged.
    """
    if sweep is None:
        return latest_sweep()
    path = _sweep_path(sweep)
    if path is None:
        is_name = len(Path(sweep).parts) == 1 and not Path(sweep).is_dir()
        raise InputError(
            Problem(
                message=f"no sweep of this name in {runs_folder()}, and no such folder"
                if is_name
                else "no sweep in this folder: sweep.json is missing",
                where=str(sweep),
                fix=_nearest_sweep(str(sweep)) if is_name else missing_sweep_fix(),
            )
        )
    folder = SweepFolder(path.absolute())
    check_sweep_record(folder)
    return folder


def _nearest_sweep(name: str) -> str:
    """Return the fix for a name that no sweep in `runs_folder` has: a similar one, if any."""
    known = [folder.root.name for folder in sweep_folders(runs_folder())]
    near = did_you_mean(name, known)
    return missing_sweep_fix() if near is None else f"{near} plw ls lists all sweeps"


def open_sweep(sweep: Path | str | None = None) -> SweepFolder:
    """Return a sweep as `find_sweep` does; check all of its records.

    Raises:
        InputError: there is no such sweep, or records are damaged.
    """
    folder = find_sweep(sweep)
    check_records(folder)
    return folder


def sweep_folders(runs: Path) -> list[SweepFolder]:
    """Return the sweeps in the folder `runs`, the most recently started first."""
    started = {path: path.stat().st_mtime_ns for path in runs.glob("*/sweep.json")}
    latest_first = sorted(started, key=lambda path: started[path], reverse=True)
    return [SweepFolder(path.parent.absolute()) for path in latest_first]


def latest_sweep() -> SweepFolder:
    """Return the most recently started sweep in `runs_folder`.

    Raises:
        InputError: there is none, or its sweep.json is damaged.
    """
    found = sweep_folders(runs_folder())
    if not found:
        raise InputError(
            Problem(
                message="no sweep in this folder",
                where=str(runs_folder()),
                fix="give the folder of a sweep",
            )
        )
    check_sweep_record(found[0])
    return found[0]


def find_sweep_and_trial(sweep: str | None, trial: str | None) -> tuple[SweepFolder, str | None]:
    """Return the sweep and the text of the trial for the arguments `[SWEEP] [TRIAL]`.

    A single argument that names no sweep is a trial of the latest sweep.

    Raises:
        InputError: there is no such sweep, or the arguments are in the wrong order.
    """
    if sweep is None or _sweep_path(sweep) is not None:
        return find_sweep(sweep), trial
    if trial is None and "/" not in sweep and sweep_folders(runs_folder()):
        latest = latest_sweep()
        if sweep in LOG_NAMES or any(
            one.startswith(sweep) for one in latest.read_sweep().trial_ids
        ):
            return latest, sweep
        raise InputError(
            Problem(
                message=f"{sweep!r} is neither a sweep in {runs_folder()} nor a trial of "
                f"{latest.root.name}, the latest sweep",
                fix="plw ls lists the sweeps, plw status the trials",
            )
        )
    if trial is not None and _sweep_path(trial) is not None:
        raise InputError(
            Problem(
                message=f"the sweep comes before the trial, got {sweep} {trial}",
                fix=f"give {shell_path(trial)} {shell_path(sweep)}",
            )
        )
    return find_sweep(sweep), trial


def find_scored_folders(names: Sequence[str], count: int) -> list[Path]:
    """Return `count` folders of scores for the arguments `[SWEEP] NAME...`.

    A name is a folder, or a trial or `untuned` of the sweep; without SWEEP of the latest one.

    Raises:
        InputError: there is no such sweep, trial or folder, or a sweep is named in place of a
            model.
    """
    sweep = names[0] if len(names) > count else None
    for name in names[-count:]:
        _check_not_a_sweep(name, count)
    return [_scored_folder(sweep, name) for name in names[-count:]]


def _check_not_a_sweep(name: str, count: int) -> None:
    if _sweep_path(name) is None:
        return
    shown = shell_path(name)
    raise InputError(
        Problem(
            message=f"{format_count(count, 'model')} must be given, and {name} is a sweep",
            fix=f"give {format_count(count, 'trial')} after {shown}, by id or untuned; "
            f"plw status {shown} lists them",
        )
    )


def _scored_folder(sweep: str | None, name: str) -> Path:
    path = Path(name).expanduser()
    if sweep is None and (path.is_dir() or "/" in name):
        return path
    folder = find_sweep(sweep)
    if name != UNTUNED:
        return folder.trial(find_trial(folder, name))
    return folder.baseline(only_baseline(folder))


def only_baseline(folder: SweepFolder) -> str:
    """Return the key of the sweep's untuned model.

    Raises:
        InputError: the sweep has several, because it varies model or data.
    """
    keys = [base.key for base in folder.read_sweep().bases]
    if len(keys) == 1:
        return keys[0]
    raise InputError(
        Problem(
            message="the sweep has several untuned models",
            where=str(folder.relative()),
            fix=f"give one of {', '.join(str(folder.baseline(key)) for key in keys)}",
        )
    )


def _sweep_path(sweep: Path | str) -> Path | None:
    """Return the folder of the sweep with this path or name; None if there is none."""
    path = Path(sweep).expanduser()
    # A name has no separator, so that a mistyped folder is not looked up elsewhere.
    named = [runs_folder() / path] if len(path.parts) == 1 else []
    for one in (path, *named):
        if (one / "sweep.json").exists():
            return one
    return None


def find_trial(folder: SweepFolder, text: str) -> str:
    """Return the id of the trial with the id or id prefix `text`.

    Raises:
        InputError: no trial or several trials match.
    """
    ids = folder.read_sweep().trial_ids
    found = [text] if text in ids else [one for one in ids if text and one.startswith(text)]
    if len(found) == 1:
        return found[0]
    shown = found or ids
    names = ", ".join(_trial_name(folder, each) for each in shown[:MAX_IDS_NAMED])
    if len(shown) > MAX_IDS_NAMED:
        names += f" and {len(shown) - MAX_IDS_NAMED} more, listed by plw status"
    several = f"{len(found)} trials begin with {text!r}"
    raise InputError(
        Problem(
            message=several if found else f"no trial {text!r}",
            where=str(folder.relative()),
            fix=f"give {'a longer prefix' if found else 'an id'}: {names}",
        )
    )


def _trial_name(folder: SweepFolder, trial_id: str) -> str:
    """Return the id with the label of `plw status` and the seed; the id alone without a record."""
    trial = folder.read_trial(trial_id)
    if trial is None:
        return trial_id
    return f"{trial_id} ({label({**trial.searched, 'seed': trial.settings['seed']})})"


def mlflow_ui(sweep: Path | str | None, port: int) -> tuple[list[str], str]:
    """Return the command that serves MLflow for a sweep, and the page to open.

    The command is empty if the sweep was tracked to a server.

    Raises:
        InputError: there is no such sweep, the sweep was never tracked, or `port` is in use.
    """
    folder = open_sweep(sweep)
    record = folder.read_tracking()
    if record is None:
        raise InputError(
            Problem(
                message="the sweep has not been tracked yet",
                where=str(folder.relative()),
                fix="run it with plw sweep SPEC",
            )
        )
    page = _trials_page(folder, record)
    if is_web(record.uri):
        return [], f"{record.uri.rstrip('/')}/{page}"
    check_port(port)
    return ui_command(record.uri, port=port), f"http://127.0.0.1:{port}/{page}"


def _trials_page(folder: SweepFolder, record: TrackingRecord) -> str:
    """Return the page of MLflow with the sweep's trials, their charts and the best trial first.

    MLflow's own page of an experiment shows traces; a sweep has none.
    """
    query = {"searchFilter": f"tags.`mlflow.parentRunId` = '{record.parent_run_id}'"}
    objective = folder.read_sweep().objective
    if objective in OBJECTIVES:
        query["orderByKey"] = f"metrics.`{score_metric(objective)}`"
        query["orderByAsc"] = str(not OBJECTIVES[objective]).lower()
    query["compareRunsMode"] = "CHART"
    return f"#/experiments/{record.experiment_id}/runs?{urlencode(query, quote_via=quote)}"
