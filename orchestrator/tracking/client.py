"""Create MLflow clients, and split posts into requests of a size that MLflow accepts.

Only this module imports mlflow at run time.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from orchestrator.foundation.redaction import flatten, redact
from orchestrator.tracking.metric_names import mlflow_names
from orchestrator.tracking.values import param_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

SPEC_TAG_PREFIX = "spec."
# MLflow's limits per request: all entities together, and params or tags alone.
MAX_PER_POST = 1000
MAX_TEXTS_PER_POST = 100
# MLflow's default of 7 retries of 120 s would block a sweep for minutes while MLflow is
# unavailable; the next sync posts anything that failed. The other variables suppress mlflow's
# terminal output.
CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

# key, value, time in ms, step
MetricPoint = tuple[str, float, int, int]


def make_client(uri: str) -> "MlflowClient":
    """Return a client with short timeouts and without output."""
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # If an enclosing MLflow run has set this variable, our runs would be logged into that run.
    os.environ.pop("MLFLOW_RUN_ID", None)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def mlflow_errors() -> tuple[type[Exception], ...]:
    """Return the exception types of a failed post; errors of requests are OSErrors."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def log_run(
    client: "MlflowClient",
    run_id: str,
    *,
    params: Mapping[str, Any] | None = None,
    points: Sequence[MetricPoint] = (),
    tags: Mapping[str, str] | None = None,
) -> None:
    """Post settings, metric points and tags in as few requests as possible.

    Settings and points that MLflow already has are not duplicated.
    """
    from mlflow.entities import Metric, Param, RunTag

    all_params = [Param(key, param_text(value)) for key, value in (params or {}).items()]
    all_tags = [RunTag(key, value) for key, value in (tags or {}).items()]
    metrics = [Metric(*point) for point in points]
    while all_params or all_tags or metrics:
        capacity = MAX_PER_POST - len(all_params[:MAX_TEXTS_PER_POST])
        capacity -= len(all_tags[:MAX_TEXTS_PER_POST])
        client.log_batch(
            run_id,
            metrics=metrics[:capacity],
            params=all_params[:MAX_TEXTS_PER_POST],
            tags=all_tags[:MAX_TEXTS_PER_POST],
        )
        all_params, all_tags = all_params[MAX_TEXTS_PER_POST:], all_tags[MAX_TEXTS_PER_POST:]
        metrics = metrics[capacity:]


def log_dataset(
    client: "MlflowClient", run_id: str, *, path: str, digest: str, profile: Mapping[str, Any]
) -> None:
    """Log the training data of a run; repeated calls do not create duplicates."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=Path(path).name,
        digest=digest,
        source_type="local" if Path(path).is_absolute() else "named",
        source=json.dumps({"uri": path}),
        profile=json.dumps(profile),
    )
    tags = [InputTag("mlflow.data.context", "training")]
    client.log_inputs(run_id, [DatasetInput(dataset, tags)])


def log_model(
    client: "MlflowClient",
    experiment_id: str,
    run_id: str,
    *,
    name: str,
    params: Mapping[str, Any],
    link: Mapping[str, Any],
    points: Sequence[MetricPoint],
) -> None:
    """Log the model of a run with its scores, if the server supports logged models.

    The weights are not copied: the model's only artifact, model.json, contains `link`. Repeated
    calls do not create a second model, even after an interrupted call.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
    from mlflow.exceptions import MlflowException

    condition = f"source_run_id = '{run_id}'"
    try:
        found = client.search_logged_models([experiment_id], condition)
        texts = {key: param_text(value) for key, value in params.items()}
        model = next(iter(found), None) or client.create_logged_model(
            experiment_id, name, source_run_id=run_id, params=texts, model_type="transformers"
        )
    except MlflowException as error:
        # Servers before MLflow 3 have no logged models.
        if error.error_code not in ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"):
            raise
        return
    if model.status != LoggedModelStatus.READY:
        with TemporaryDirectory() as folder:
            (Path(folder) / "model.json").write_text(json.dumps(redact(dict(link)), indent=2))
            client.log_model_artifacts(model.model_id, folder)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    known = {metric.key: metric.value for metric in model.metrics or []}
    metrics = [
        Metric(*point, model_id=model.model_id)
        for point in points
        if known.get(point[0]) != point[1]
    ]
    for start in range(0, len(metrics), MAX_PER_POST):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_PER_POST])


class SystemMonitors:
    """Sample CPU, memory, disk and GPU use of this machine with MLflow's monitors."""

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

        self._monitors = [CPUMonitor(), DiskMonitor()]
        for kind in (GPUMonitor, ROCMMonitor):
            try:
                self._monitors.append(kind())
            except Exception as error:
                # MLflow does not document which error is raised if the machine has no such GPUs.
                logging.debug("no %s: %s", kind.__name__, error)
        # CPU use is measured between two samples, so the first sample is taken here.
        self.sample()

    def sample(self) -> dict[str, float]:
        """Return percentages, megabytes and watts under MLflow's metric names."""
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return values


def redacted_leaves(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of settings by dotted path, as names for MLflow, without passwords.

    The path of a setting can contain any text: `data.columns` has the names of the data's columns.
    """
    leaves = dict(flatten(redact(dict(section))))
    names = mlflow_names(leaves, added_chars=len(SPEC_TAG_PREFIX))
    return {names[path]: value for path, value in leaves.items()}
