"""Find the sweep, the trial or the MLflow page that a person asks for."""

from pathlib import Path

from orchestrator.record.folder import SweepFolder, check_records, check_sweep_record
from orchestrator.tracking.uri import check_port, is_web, ui_command
from orchestrator.watching.typed import typed_missing
from trainers.foundation.errors import InputError, Problem

MAX_IDS_NAMED = 20


def find_sweep(path: Path) -> SweepFolder:
    """The sweep in a folder, of which only the sweep's own record was looked at.

    Raises:
        InputError: there is none, or that record is damaged.
    """
    folder = SweepFolder(path.expanduser().absolute())
    if not folder.sweep_json.exists():
        raise InputError(
            Problem(
                message="no sweep here: sweep.json is missing",
                where=str(path),
                fix=typed_missing(),
            )
        )
    check_sweep_record(folder)
    return folder


def open_sweep(path: Path) -> SweepFolder:
    """The sweep in a folder, all of whose records can be read.

    Raises:
        InputError: there is none, or records of it are damaged.
    """
    folder = find_sweep(path)
    check_records(folder)
    return folder


def latest_sweep(runs: Path) -> SweepFolder:
    """The sweep below `runs` that was started last.

    Raises:
        InputError: there is none.
    """
    started = {path: path.stat().st_mtime_ns for path in runs.glob("*/sweep.json")}
    if not started:
        raise InputError(
            Problem(message="no sweep here", where=str(runs), fix="give the folder of a sweep")
        )
    return find_sweep(max(started, key=lambda path: started[path]).parent)


def find_trial(folder: SweepFolder, text: str) -> str:
    """The id of the trial that `text`, an id or the beginning of one, stands for.

    Raises:
        InputError: no trial of the sweep begins like that, or several do.
    """
    ids = folder.read_sweep().trial_ids
    found = [text] if text in ids else [one for one in ids if text and one.startswith(text)]
    if len(found) == 1:
        return found[0]
    shown = found or ids
    names = ", ".join(shown[:MAX_IDS_NAMED])
    if len(shown) > MAX_IDS_NAMED:
        names += f" and {len(shown) - MAX_IDS_NAMED} more, which plw status lists"
    several = f"{len(found)} trials begin with {text!r}"
    raise InputError(
        Problem(
            message=several if found else f"no trial {text!r}",
            where=str(folder.relative()),
            fix=f"give {'more of ' if found else ''}an id: {names}",
        )
    )


def ui_of(path: Path, port: int) -> tuple[list[str], str]:
    """The command that serves MLflow for a sweep, if none serves it yet, and the page to open.

    Raises:
        InputError: there is no sweep in `path`, it was never tracked, or `port` is taken.
    """
    folder = open_sweep(path)
    record = folder.read_tracking()
    if record is None:
        raise InputError(
            Problem(message="the sweep was not tracked yet", where=str(path), fix="run it first")
        )
    page = f"#/experiments/{record.experiment_id}"
    if is_web(record.uri):
        return [], f"{record.uri.rstrip('/')}/{page}"
    check_port(port)
    return ui_command(record.uri, port=port), f"http://127.0.0.1:{port}/{page}"
