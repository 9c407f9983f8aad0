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


def flat(section: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of settings under their dotted paths, without passwords."""
    return dict(flatten(redact(dict(section))))
