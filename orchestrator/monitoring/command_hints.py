"""Build the commands and paths that messages suggest to the user.

Commands name a sweep by its folder on this machine. In the output of a cluster job, they contain
the sweep's name and the cluster's options, because users read that output on a laptop, where the
head's paths do not exist.
"""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from orchestrator.foundation.redaction import redact
from orchestrator.foundation.shell_words import shell_path
from orchestrator.record.folder import State, SweepFolder, SweepRecord
from orchestrator.record.lock import is_running

# The cluster's options on the user's command line: `--cluster FILE` or `--address URL`.
CLUSTER_OPTIONS_VARIABLE = "PLW_CLUSTER_OPTIONS"
# The folder for sweeps on the cluster's storage; cluster.yaml sets it for `ray start` of the head.
RUNS_VARIABLE = "PLW_RUNS_DIR"
_CLUSTER = "--cluster "
ENDED: tuple[State, ...] = ("done", "stopped", "failed")


def cluster_options_text(address: str | None, cluster_file: Path | None) -> str:
    """Return the command-line options that name a cluster."""
    if cluster_file is not None:
        return f"{_CLUSTER}{shell_path(cluster_file)}"
    # Redacted, because the text is stored with the job on the cluster, where others can read it.
    return f"--address {shlex.quote(redact(str(address)))}"


def is_on_cluster() -> bool:
    """Return whether this process runs as a job on a cluster, for a user at another machine."""
    return CLUSTER_OPTIONS_VARIABLE in os.environ


def sweep_argument(folder: SweepFolder, trial_id: str | None = None) -> str:
    """Return the arguments that name the sweep, or its trial, on a `plw` command line."""
    trial = [] if trial_id is None else [trial_id]
    target = os.environ.get(CLUSTER_OPTIONS_VARIABLE)
    if target is None:
        return " ".join([shell_path(folder.relative()), *trial])
    runs = os.environ.get(RUNS_VARIABLE)
    is_by_name = runs is not None and folder.root.parent == Path(runs)
    return " ".join([shell_path(folder.root.name if is_by_name else folder.root), *trial, target])


def resume_command(sweep: SweepRecord) -> str:
    """Return the command that resumes the sweep."""
    target = os.environ.get(CLUSTER_OPTIONS_VARIABLE)
    return sweep.command if target is None else f"plw submit SPEC {target}"


def more_seeds_command(sweep: SweepRecord, next_seeds: Sequence[int]) -> str | None:
    """Return the command that runs the next trials; None if it would not run exactly these."""
    more = sweep.with_next_seeds(next_seeds)
    if more is None:
        return None
    target = os.environ.get(CLUSTER_OPTIONS_VARIABLE)
    if target is None:
        return more.command
    return f"{resume_command(sweep)} --set {shlex.quote(more.overrides[-1])}"


def resume_hint(folder: SweepFolder, states: Sequence[State]) -> str | None:
    """Return a line on how to continue the sweep; None if it runs or all its trials have ended."""
    sweep = folder.read_sweep()
    has_ended = len(states) >= sweep.num_planned and all(state in ENDED for state in states)
    if is_running(folder) or has_ended:
        return None
    return f"the sweep is not running; to continue: {resume_command(sweep)}"


def missing_sweep_fix() -> str:
    """Return the suggested fix for a sweep that was not found."""
    if os.environ.get(CLUSTER_OPTIONS_VARIABLE) is None:
        return "give the name or folder of a sweep, such as demo or runs/demo; plw ls lists them"
    return (
        "give the name of a sweep on the cluster; a submitted sweep appears once it has started, "
        "and a new head downloads a sweep from its object store with plw submit SPEC "
        f"{os.environ[CLUSTER_OPTIONS_VARIABLE]}"
    )


def log_location(folder: SweepFolder, trial_id: str | None = None) -> str:
    """Return the path of a trial's or the sweep's log; on a cluster, the command that shows it."""
    if os.environ.get(CLUSTER_OPTIONS_VARIABLE) is None:
        return str(folder.log if trial_id is None else folder.trial(trial_id) / "log.txt")
    return f"plw logs {sweep_argument(folder, trial_id)}"


def page_commands(folder: SweepFolder) -> list[tuple[str, str]]:
    """Return commands that show a sweep's report and MLflow, with their purposes."""
    target = os.environ.get(CLUSTER_OPTIONS_VARIABLE)
    browse = "browse runs, metrics and samples in MLflow"
    if target is None:
        return [(f"plw ui {sweep_argument(folder)}", browse)]
    if not target.startswith(_CLUSTER):
        return []
    cluster_file = target.removeprefix(_CLUSTER)
    get = f"ray rsync-down {cluster_file} {shell_path(folder.report_html)} report.html"
    return [(get, "download the report"), (f"plw ui {target}", browse)]
