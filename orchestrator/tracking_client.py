"""MLflow's client, made for a sweep, and posts in the sizes that it takes.

The only module that imports mlflow.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.plain import flatten, redact
from orchestrator.tracking_files import param_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_METRICS_PER_POST = 1000
MAX_PARAMS_PER_POST = 100
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


def log_params(client: "MlflowClient", run_id: str, settings: Mapping[str, Any]) -> None:
    """Post a trial's settings; the same ones may be posted again."""
    from mlflow.entities import Param

    params = [Param(key, param_text(value)) for key, value in flatten(redact(dict(settings)))]
    for start in range(0, len(params), MAX_PARAMS_PER_POST):
        client.log_batch(run_id, params=params[start : start + MAX_PARAMS_PER_POST])


def set_spec_tags(client: "MlflowClient", run_id: str, spec: Mapping[str, Any]) -> None:
    """The spec as tags, since a sweep that is run again may have another, and params are fixed."""
    from mlflow.entities import RunTag

    tags = [RunTag(f"spec.{key}", param_text(value)) for key, value in flatten(redact(dict(spec)))]
    for start in range(0, len(tags), MAX_PARAMS_PER_POST):
        client.log_batch(run_id, tags=tags[start : start + MAX_PARAMS_PER_POST])


def log_metrics(client: "MlflowClient", run_id: str, points: Sequence[MetricPoint]) -> None:
    """Post metric points; a point that MLflow has already stays one."""
    from mlflow.entities import Metric

    metrics = [Metric(*point) for point in points]
    for start in range(0, len(metrics), MAX_METRICS_PER_POST):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS_PER_POST])
