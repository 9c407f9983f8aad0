"""What `plw submit` knows before it asks a cluster: the spec, and whether a trial would fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cluster.tunnel import read_cluster
from orchestrator.spec.sweep_spec import SweepSpec, load_spec
from orchestrator.trials.placement import Cluster, shapes_of_config, slots
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import read_yaml

if TYPE_CHECKING:
    # Types only: it imports Ray.
    from ray.job_submission import JobDetails

    from orchestrator.cluster.jobs import Jobs


def read_spec(path: Path, *, output_dir: str | None, tracking_uri: str | None) -> dict[str, Any]:
    """The content of the spec's file with its name and these overrides.

    Raises:
        InputError: every rule that it breaks, with its line.
    """
    # For its errors alone: paths must stay as they are written, since many lead to the cluster.
    spec: SweepSpec = load_spec(path)
    content = read_yaml(path)
    content["name"] = spec.name
    if output_dir is not None:
        content["output_dir"] = output_dir
    if tracking_uri is not None:
        content["tracking"] = {**(content.get("tracking") or {}), "uri": tracking_uri}
    return content


def check_shape(content: Mapping[str, Any], cluster_file: Path) -> None:
    """Refuse a cluster that will never hold a trial, as far as its file tells.

    Hosts of one's own say how large they are only once they run.

    Raises:
        InputError: it will not, or the file cannot be read.
    """
    config = read_cluster(cluster_file)
    try:
        shapes = shapes_of_config(config)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            Problem(
                message=f"its available_node_types or max_workers cannot be read: {error}",
                where=str(cluster_file),
                fix="write them as in cluster.yaml",
            )
        ) from error
    if not any(shape.resources for shape in shapes):
        return
    spec = SweepSpec.model_validate(content)
    slots(spec.resources, Cluster(nodes=[], may_become=shapes))


def find_job(jobs: "Jobs", sweep: str | None) -> "JobDetails":
    """The job of a sweep, by its name or its folder on the cluster; the latest one for None.

    Of a sweep that no job is known of, as after a new head, the latest job of any other will do:
    it is asked for its code.

    Raises:
        InputError: nothing was submitted to this cluster yet.
    """
    found = jobs.sweeps(None if sweep is None else Path(sweep).name) or jobs.sweeps()
    if found:
        return found[0]
    raise InputError(
        Problem(
            message="no sweep was submitted to this cluster since its head started",
            fix="submit the same spec again, which goes on with what is not done",
        )
    )
