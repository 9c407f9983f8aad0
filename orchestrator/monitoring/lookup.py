"""Find a sweep, a trial, or the MLflow page of a sweep."""

from pathlib import Path
from urllib.parse import quote, urlencode

from orchestrator.monitoring.command_hints import missing_sweep_fix
from orchestrator.record.folder import (
    SweepFolder,
    TrackingRecord,
    check_records,
    check_sweep_record,
)
from orchestrator.spec.search_fields import OBJECTIVES
from orchestrator.tracking.metric_names import score_metric
from orchestrator.tracking.uri import check_port, is_web, ui_command
from trainers.foundation.errors import InputError, Problem

MAX_IDS_NAMED = 20


def find_sweep(path: Path) -> SweepFolder:
    """Return the sweep in a folder; check only its sweep.json.

    Raises:
        InputError: the folder has no sweep, or sweep.json is damaged.
    """
    folder = SweepFolder(path.expanduser().absolute())
    if not folder.sweep_json.exists():
        raise InputError(
            Problem(
                message="no sweep in this folder: sweep.json is missing",
                where=str(path),
                fix=missing_sweep_fix(),
            )
        )
    check_sweep_record(folder)
    return folder


def open_sweep(path: Path) -> SweepFolder:
    """Return the sweep in a folder; check all of its records.

    Raises:
        InputError: the folder has no sweep, or records are damaged.
    """
    folder = find_sweep(path)
    check_records(folder)
    return folder


def latest_sweep(runs: Path) -> SweepFolder:
    """Return the most recently started sweep in `runs`.

    Raises:
        InputError: `runs` contains no sweep.
    """
    started = {path: path.stat().st_mtime_ns for path in runs.glob("*/sweep.json")}
    if not started:
        raise InputError(
            Problem(
                message="no sweep in this folder", where=str(runs), fix="give the folder of a sweep"
            )
        )
    return find_sweep(max(started, key=lambda path: started[path]).parent)


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
    names = ", ".join(shown[:MAX_IDS_NAMED])
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


def mlflow_ui(path: Path, port: int) -> tuple[list[str], str]:
    """Return the command that serves MLflow for a sweep, and the page to open.

    The command is empty if the sweep was tracked to a server.

    Raises:
        InputError: `path` has no sweep, the sweep was never tracked, or `port` is in use.
    """
    folder = open_sweep(path)
    record = folder.read_tracking()
    if record is None:
        raise InputError(
            Problem(message="the sweep has not been tracked yet", where=str(path), fix="run it")
        )
    page = _trials_page(folder, record)
    if is_web(record.uri):
        return [], f"{record.uri.rstrip('/')}/{page}"
    check_port(port)
    return ui_command(record.uri, port=port), f"http://127.0.0.1:{port}/{page}"


def _trials_page(folder: SweepFolder, record: TrackingRecord) -> str:
    """Return the page of MLflow with the sweep's trials, their charts and the best trial first.

    MLflow's own page of an experiment shows traces, which a sweep has none of.
    """
    query = {"searchFilter": f"tags.`mlflow.parentRunId` = '{record.parent_run_id}'"}
    objective = folder.read_sweep().objective
    if objective in OBJECTIVES:
        query["orderByKey"] = f"metrics.`{score_metric(objective)}`"
        query["orderByAsc"] = str(not OBJECTIVES[objective]).lower()
    query["compareRunsMode"] = "CHART"
    return f"#/experiments/{record.experiment_id}/runs?{urlencode(query, quote_via=quote)}"
