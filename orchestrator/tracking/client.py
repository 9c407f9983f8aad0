"""MLflow's client, made for a sweep, and posts in the sizes that it takes.

The only module that imports mlflow.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from orchestrator.foundation.redaction import flatten, redact
from orchestrator.tracking.files import param_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Of all together, and of params or tags among them.
MAX_PER_POST = 1000
MAX_TEXTS_PER_POST = 100
# A sweep must not stand still while MLflow is away: its own 7 retries of 120 s take minutes,
# and the next sync posts what this one could not. The rest keeps mlflow off the terminal.
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
    """A client that neither waits long nor prints."""
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Left by an enclosing MLflow run, it would draw our runs into that one.
    os.environ.pop("MLFLOW_RUN_ID", None)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def mlflow_errors() -> tuple[type[Exception], ...]:
    """What MLflow being away or refusing raises; the errors of requests are OSErrors."""
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
    """Post settings, metric points and tags in as few requests as MLflow takes.

    What MLflow has already, settings and points alike, may be posted again and stays one.
    """
    from mlflow.entities import Metric, Param, RunTag

    all_params = [Param(key, param_text(value)) for key, value in (params or {}).items()]
    all_tags = [RunTag(key, value) for key, value in (tags or {}).items()]
    metrics = [Metric(*point) for point in points]
    while all_params or all_tags or metrics:
        room = MAX_PER_POST - len(all_params[:MAX_TEXTS_PER_POST])
        room -= len(all_tags[:MAX_TEXTS_PER_POST])
        client.log_batch(
            run_id,
            metrics=metrics[:room],
            params=all_params[:MAX_TEXTS_PER_POST],
            tags=all_tags[:MAX_TEXTS_PER_POST],
        )
        all_params, all_tags = all_params[MAX_TEXTS_PER_POST:], all_tags[MAX_TEXTS_PER_POST:]
        metrics = metrics[room:]


def log_dataset(
    client: "MlflowClient", run_id: str, *, path: str, digest: str, profile: Mapping[str, Any]
) -> None:
    """Name the data that a run was trained on; logged again it stays one."""
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
    """Give a run its model, with the scores by which models are compared, if MLflow knows models.

    The weights stay where they are: the model's one file, model.json, is `link`. Logged again it
    stays one model, also where MLflow went away in the middle.
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
        # Servers before MLflow 3 know runs alone.
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
    """MLflow's monitors of this machine's processors, memory, disk and GPUs."""

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
                # Neither says which error a machine without its GPUs gives.
                logging.debug("no %s: %s", kind.__name__, error)
        # How busy a processor was is counted from one question to the next.
        self.sample()

    def sample(self) -> dict[str, float]:
        """Percentages, megabytes and watts by MLflow's names for them."""
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return values


def flat(section: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of settings under their dotted paths, without passwords."""
    return dict(flatten(redact(dict(section))))
