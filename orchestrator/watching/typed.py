"""How a person asks for a sweep: by its folder here, or by its name on the cluster it runs on.

What a job on a cluster prints is read on the laptop, where the head's paths mean nothing.
"""

import os
import shlex
from pathlib import Path

from orchestrator.foundation.redaction import redact
from orchestrator.record.folder import SweepFolder

# What the laptop's command line said of the cluster: `--cluster FILE` or `--address URL`.
TARGET_VARIABLE = "PLW_TYPED_TARGET"
# The cluster's storage, which the head's `ray start` is told in cluster.yaml.
RUNS_VARIABLE = "PLW_RUNS_DIR"
_CLUSTER = "--cluster "


def target_of(address: str | None, cluster_file: Path | None) -> str:
    """The options that name a cluster, as they are typed."""
    if cluster_file is not None:
        return f"{_CLUSTER}{shlex.quote(str(cluster_file))}"
    # It goes to the cluster with the job, where others read it.
    return f"--address {shlex.quote(redact(str(address)))}"


def typed_sweep(folder: SweepFolder) -> str:
    """What stands for the sweep on a command line of `plw`."""
    target = os.environ.get(TARGET_VARIABLE)
    if target is None:
        return str(folder.relative())
    runs = os.environ.get(RUNS_VARIABLE)
    is_by_name = runs is not None and folder.root.parent == Path(runs)
    return f"{folder.root.name if is_by_name else folder.root} {target}"


def typed_again(spec_path: str) -> str:
    """The command that goes on with the sweep."""
    target = os.environ.get(TARGET_VARIABLE)
    return f"plw sweep {spec_path}" if target is None else f"plw submit SPEC {target}"


def typed_missing() -> str:
    """What to do where no sweep is found."""
    if os.environ.get(TARGET_VARIABLE) is None:
        return "give the output_dir of a sweep, such as runs/demo"
    return (
        "give the name of a sweep that was submitted there; one just submitted is there once it "
        f"has begun, and a new head fetches one from its object store upon {typed_again('')}"
    )


def typed_log(folder: SweepFolder, trial_id: str | None = None) -> str:
    """Where the log of a trial is, or that of the sweep: a file, or the command that shows it."""
    if os.environ.get(TARGET_VARIABLE) is None:
        return str(folder.log if trial_id is None else folder.trial(trial_id) / "log.txt")
    return f"plw logs {trial_id or 'sweep'} {typed_sweep(folder)}"


def typed_pages(folder: SweepFolder) -> list[tuple[str, str]]:
    """Commands that show a sweep's report and MLflow, and what they do."""
    target = os.environ.get(TARGET_VARIABLE)
    browse = "browse runs, metrics and samples in MLflow"
    if target is None:
        return [(f"plw ui {typed_sweep(folder)}", browse)]
    if not target.startswith(_CLUSTER):
        return []
    get = f"ray rsync-down {target.removeprefix(_CLUSTER)} {folder.report_html} report.html"
    return [(get, "bring the report here"), (f"plw ui {target}", browse)]
