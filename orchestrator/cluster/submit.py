"""Check a spec against a cluster's file before a submit, and find the job of a sweep."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cluster.tunnel import read_cluster
from orchestrator.spec.sweep_spec import SweepSpec, apply_spec_override, load_spec
from orchestrator.trials.placement import Cluster, node_shapes, trial_slots
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import read_yaml

if TYPE_CHECKING:
    # Types only: this imports Ray.
    from ray.job_submission import JobDetails

    from orchestrator.cluster.jobs import Jobs


def read_spec(
    path: Path,
    *,
    output_dir: str | None,
    tracking_uri: str | None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the content of the spec's file with its name and the overrides.

    Args:
        overrides: `key.path=value` settings that replace those of the file.

    Raises:
        InputError: the spec is invalid; lists every problem with its line.
    """
    # Load the spec only to validate it. The returned content keeps relative paths, because some
    # of them are paths on the cluster.
    spec: SweepSpec = load_spec(path, overrides)
    content = read_yaml(path)
    for override in overrides:
        apply_spec_override(content, override)
    content["name"] = spec.name
    if output_dir is not None:
        content["output_dir"] = output_dir
    if tracking_uri is not None:
        content["tracking"] = {**(content.get("tracking") or {}), "uri": tracking_uri}
    return content


def check_trial_fits(content: Mapping[str, Any], cluster_file: Path) -> None:
    """Check that a trial fits into the node types of a cluster's file.

    On-premise hosts are not checked: their size is known only once they run.

    Raises:
        InputError: no trial fits, or the file cannot be read.
    """
    config = read_cluster(cluster_file)
    try:
        shapes = node_shapes(config)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            Problem(
                message=f"available_node_types or max_workers is invalid: {error}",
                where=str(cluster_file),
                fix="write them as in cluster.yaml",
            )
        ) from error
    if not any(shape.resources for shape in shapes):
        return
    spec = SweepSpec.model_validate(content)
    trial_slots(spec.resources, Cluster(nodes=[], future_nodes=shapes))


def find_job(jobs: "Jobs", sweep: str | None) -> "JobDetails":
    """Return the job of a sweep by its name or folder on the cluster; for None, the latest job.

    After a restart of the head, a sweep has no job. In that case, return the latest job of any
    sweep, which provides the code.

    Raises:
        InputError: the cluster has no jobs.
    """
    found = jobs.sweeps(None if sweep is None else Path(sweep).name) or jobs.sweeps()
    if found:
        return found[0]
    raise InputError(
        Problem(
            message="no sweep has been submitted to this cluster since its head started",
            fix="submit the same spec again; it resumes the trials that are not done",
        )
    )
