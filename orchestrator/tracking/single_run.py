"""Log a finished fine-tune that belongs to no sweep: settings, metrics and tags."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.tracking.client import log_run, make_client, mlflow_errors, redacted_leaves
from orchestrator.tracking.uri import artifact_root, check_reachable
from orchestrator.tracking.values import metric_lines
from trainers.foundation.errors import InputError, Problem


def log_fine_tune(
    uri: str,
    experiment: str,
    name: str,
    *,
    settings: Mapping[str, Any],
    metrics: Path,
    tags: Mapping[str, str],
) -> str:
    """Log a fine-tune and return the id of its run; a repetition adds nothing.

    Args:
        name: name of the run, unique in the experiment.
        metrics: its metrics.jsonl.

    Raises:
        InputError: MLflow does not accept the run.
    """
    check_reachable(uri)
    client = make_client(uri)
    try:
        found = client.get_experiment_by_name(experiment)
        root = artifact_root(uri)
        experiment_id = (
            client.create_experiment(experiment, root.as_uri() if root else None)
            if found is None
            else found.experiment_id
        )
        runs = client.search_runs([experiment_id], f"tags.`mlflow.runName` = '{name}'")
        run = runs[0] if runs else client.create_run(experiment_id, run_name=name)
        run_id = str(run.info.run_id)
        points = [
            (key, value, line.time_ms, line.step)
            for line in metric_lines(metrics)
            for key, value in line.metrics.items()
        ]
        log_run(client, run_id, params=redacted_leaves(settings), points=points, tags=tags)
        client.set_terminated(run_id, "FINISHED")
    except mlflow_errors() as error:
        message = f"MLflow did not accept the run: {error}"
        raise InputError(Problem(message=message, where="tracking.uri")) from error
    return run_id
