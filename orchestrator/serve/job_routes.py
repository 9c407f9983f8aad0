"""Routes of /v1/fine_tuning."""

import json
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from orchestrator.serve.access import Access
from orchestrator.serve.errors import ApiError, invalid_value
from orchestrator.serve.jobs import Jobs
from orchestrator.serve.query import json_answer, read_limit, read_metadata, read_query
from orchestrator.serve.records import JobRecord, event_id, page
from orchestrator.serve.store import Store

_DEFAULT_PAGE, _MAX_PAGE = 20, 100
_MAX_EVENTS = 1000


def job_routes(jobs: Jobs, store: Store, access: Access) -> APIRouter:
    """Return the routes.

    Those that only read are coroutines: with the hand-over to a thread, a status call takes 0.46 ms
    of processor time instead of 0.26 ms.
    """
    routes = APIRouter(prefix="/fine_tuning")
    Owner = Depends(access.owner)

    @routes.post("/jobs")
    async def create(request: Request, owner: str = Owner) -> Response:
        body = await read_json_body(request)
        key = request.headers.get("idempotency-key")
        is_retry = request.headers.get("x-stainless-retry-count", "0") != "0"
        job = await run_in_threadpool(jobs.create, owner, body, key=key, is_retry=is_retry)
        return json_answer(job.public())

    @routes.get("/jobs")
    async def list_jobs(request: Request, owner: str = Owner) -> Response:
        query = read_query(request, ("after", "limit", "metadata"))
        after = query.get("after")
        if after is not None:
            jobs.get(after, owner)
        found, has_more = store.jobs(
            owner,
            after=after,
            limit=read_limit(query, default=_DEFAULT_PAGE, top=_MAX_PAGE),
            metadata=read_metadata(request),
        )
        return json_answer(page([job.public() for job in found], has_more=has_more))

    @routes.get("/jobs/{job_id}")
    async def retrieve(job_id: str, owner: str = Owner) -> Response:
        return json_answer(jobs.get(job_id, owner).public())

    @routes.post("/jobs/{job_id}/cancel")
    def cancel(job_id: str, owner: str = Owner) -> Response:
        return json_answer(jobs.cancel(job_id, owner).public())

    @routes.post("/jobs/{job_id}/pause")
    def pause(job_id: str, owner: str = Owner) -> Response:
        return json_answer(jobs.pause(job_id, owner).public())

    @routes.post("/jobs/{job_id}/resume")
    def resume(job_id: str, owner: str = Owner) -> Response:
        return json_answer(jobs.resume(job_id, owner).public())

    @routes.get("/jobs/{job_id}/events")
    async def events(job_id: str, request: Request, owner: str = Owner) -> Response:
        query = read_query(request, ("after", "limit"))
        jobs.get(job_id, owner)
        after = query.get("after")
        prefix = event_id(job_id, "")
        if after is not None and not after.startswith(prefix):
            raise invalid_value("after", f"'{after[:80]}' is not an event of {job_id}.")
        found, has_more = store.events(
            job_id,
            after=None if after is None else after.removeprefix(prefix),
            limit=read_limit(query, default=_DEFAULT_PAGE, top=_MAX_EVENTS),
        )
        return json_answer(page([event.public(job_id) for event in found], has_more=has_more))

    @routes.get("/jobs/{job_id}/checkpoints")
    def checkpoints(job_id: str, request: Request, owner: str = Owner) -> Response:
        query = read_query(request, ("after", "limit"))
        read_limit(query, default=10, top=_MAX_PAGE)
        job = jobs.get(job_id, owner)
        has_model = job.fine_tuned_model is not None and not job.is_model_deleted
        found = [_checkpoint(job)] if has_model and query.get("after") is None else []
        return json_answer(page(found, has_more=False))

    @routes.api_route("/checkpoints/{name:path}", methods=["GET", "POST", "DELETE"])
    def permissions(name: str) -> None:
        raise ApiError(
            501,
            "Checkpoint permissions are not supported: each API key sees its own models only.",
            code="not_supported",
        )

    return routes


def _checkpoint(job: JobRecord) -> dict[str, Any]:
    """Return the only usable checkpoint: the final model."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": f"ftckpt-{job.id.removeprefix('ftjob-')}",
        "created_at": job.finished_at,
        "fine_tuned_model_checkpoint": job.fine_tuned_model,
        "fine_tuning_job_id": job.id,
        "step_number": job.last_step,
        "metrics": {
            "step": job.last_step,
            "train_loss": job.train_loss,
            "full_valid_loss": job.valid_loss,
        },
    }


async def read_json_body(request: Request) -> Any:
    """Return the body of a request.

    Raises:
        ApiError: it is not JSON.
    """
    try:
        return json.loads(await request.body(), parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise ApiError(
            400, "We could not parse the JSON body of your request.", code="invalid_json"
        ) from None


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
