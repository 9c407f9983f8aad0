"""Find or create a sweep's runs in MLflow, and list their artifacts."""

from collections.abc import Iterator
from hashlib import sha256
from typing import TYPE_CHECKING

from orchestrator.foundation.redaction import redact
from orchestrator.record.folder import SweepFolder, TrackingRecord
from orchestrator.tracking.run_state import RunState
from orchestrator.tracking.uri import artifact_root, is_web
from orchestrator.tracking.values import milliseconds
from trainers.foundation.errors import InputError, Problem

if TYPE_CHECKING:
    # Types only: at run time, only orchestrator.tracking.client imports mlflow.
    from mlflow import MlflowClient
    from mlflow.entities import Run


def open_runs(
    client: "MlflowClient", folder: SweepFolder, uri: str, experiment: str
) -> TrackingRecord:
    """Return the sweep's experiment, parent run and trial runs; set the parent to running.

    Runs are found by their tags. A kill after a run was created but before it was recorded
    therefore does not lead to a second run. Runs that MLflow no longer has, for example because its
    database was deleted, are dropped from the record and created again later.

    Raises:
        InputError: the experiment was deleted in MLflow.
    """
    sweep = folder.read_sweep()
    sweep_id = sha256(f"{sweep.name}\n{sweep.created_at}".encode()).hexdigest()[:16]
    experiment_id = _experiment_id(client, folder, uri, experiment)
    known = folder.read_tracking()
    same_place = known and (known.uri, known.experiment_id) == (redact(uri), experiment_id)
    wanted = [f"attributes.run_id = '{known.parent_run_id}'"] if known and same_place else []
    wanted.append(f"tags.`plw.sweep_id` = '{sweep_id}'")
    found = (next(_active_runs(client, experiment_id, condition), None) for condition in wanted)
    parent = next((run for run in found if run is not None), None)
    if parent is None:
        commit = redact(str(sweep.environment.get("commit") or ""))
        parent = client.create_run(
            experiment_id,
            start_time=milliseconds(sweep.created_at),
            run_name=sweep.name,
            tags={
                "plw.sweep_id": sweep_id,
                "mlflow.source.name": "plw sweep",
                **({"mlflow.source.git.commit": commit} if commit else {}),
            },
        )
    elif parent.info.status != "RUNNING":
        client.update_run(parent.info.run_id, status="RUNNING")
    parent_id = str(parent.info.run_id)
    children = _active_runs(client, experiment_id, f"tags.`mlflow.parentRunId` = '{parent_id}'")
    return TrackingRecord(
        uri=redact(uri),
        experiment=experiment,
        experiment_id=experiment_id,
        parent_run_id=parent_id,
        # If a trial has two runs, the older one is used. Only concurrent sweeps could create two.
        trial_run_ids={
            run.data.tags["plw.trial_id"]: str(run.info.run_id)
            for run in children
            if "plw.trial_id" in run.data.tags
        },
    )


def _experiment_id(client: "MlflowClient", folder: SweepFolder, uri: str, experiment: str) -> str:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        # By default, MLflow puts the artifacts of a local store into the working directory.
        root = artifact_root(uri) or folder.root.resolve().parent / "mlartifacts"
        location = None if is_web(uri) else root.as_uri()
        return str(client.create_experiment(experiment, artifact_location=location))
    if found.lifecycle_stage != "active":
        raise InputError(
            Problem(
                message=f"the MLflow experiment {experiment!r} was deleted",
                where="tracking.experiment",
                fix="restore it in MLflow or name another experiment",
            )
        )
    return str(found.experiment_id)


def _active_runs(client: "MlflowClient", experiment_id: str, condition: str) -> Iterator["Run"]:
    """Yield the runs that meet `condition` and are not deleted, the newest first."""
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id],
            filter_string=condition,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def verify_state(client: "MlflowClient", state: RunState) -> RunState:
    """Return the state reduced to the artifacts that MLflow has; the rest is posted again."""
    present = set(_artifacts(client, state.run_id))
    return RunState(
        trial_id=state.trial_id,
        run_id=state.run_id,
        files={name: digest for name, digest in state.files.items() if name in present},
        names_version=state.names_version,
    )


def _artifacts(client: "MlflowClient", run_id: str, folder: str | None = None) -> Iterator[str]:
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from _artifacts(client, run_id, entry.path)
        else:
            yield str(entry.path)
