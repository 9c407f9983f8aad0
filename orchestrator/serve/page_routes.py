"""The page `/`: jobs with status, loss curve and report, from the same records as the API."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from orchestrator.record.folder import SweepFolder
from orchestrator.serve.access import Access
from orchestrator.serve.errors import ApiError
from orchestrator.serve.jobs import Jobs
from orchestrator.serve.paths import DataFolder, without_paths
from orchestrator.serve.query import read_query
from orchestrator.serve.records import JobRecord
from orchestrator.serve.store import Store

if TYPE_CHECKING:
    from jinja2 import Template

_PER_PAGE = 20
_MAX_POINTS = 1000
_POLL_S = 1.0
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'unsafe-inline';"
    " script-src 'self' 'unsafe-inline'; img-src data:",
    "Cache-Control": "no-store",
}


def page_routes(jobs: Jobs, store: Store, folder: DataFolder, access: Access) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()
    Owner = Depends(access.owner)

    @routes.get("/")
    def index(request: Request, owner: str = Owner) -> Response:
        after = read_query(request, ("after",)).get("after")
        if after is not None:
            jobs.get(after, owner)
        found, has_more = store.jobs(owner, after=after, limit=_PER_PAGE, metadata={})
        shown = [_shown(job, store, folder) for job in found]
        older = found[-1].id if has_more else None
        return HTMLResponse(_template().render(jobs=shown, older=older), headers=_HEADERS)

    @routes.get("/jobs/changes")
    async def changes(request: Request, owner: str = Owner) -> Response:
        async def events() -> AsyncIterator[str]:
            seen = store.version
            yield "retry: 3000\n\n"
            while not await request.is_disconnected():
                await asyncio.sleep(_POLL_S)
                # A comment every second also shows a proxy that the stream lives.
                yield ": \n\n" if store.version == seen else "data: changed\n\n"
                seen = store.version

        return StreamingResponse(events(), media_type="text/event-stream")

    @routes.get("/jobs/{job_id}/report")
    def report(job_id: str, owner: str = Owner) -> Response:
        job = jobs.get(job_id, owner)
        path = SweepFolder(folder.job(job.id).sweep).report_html
        if not path.exists():
            raise ApiError(404, f"Job {job_id} has no report yet.")
        text = path.read_text(encoding="utf-8").replace(str(folder.root), "data")
        return HTMLResponse(text, headers=_HEADERS)

    return routes


def _shown(job: JobRecord, store: Store, folder: DataFolder) -> dict[str, Any]:
    """Return what the page shows of a job."""
    events, _ = store.events(job.id, after=None, limit=_MAX_POINTS)
    losses = [event.data["train_loss"] for event in events if "train_loss" in event.data][::-1]
    result = job.auto.result if job.auto is not None else None
    weight = job.hyperparameters["prompt_loss_weight"]
    return {
        "id": job.id,
        "model": job.model,
        "suffix": job.suffix,
        "status": job.status,
        "paused": job.paused,
        "weight": weight if isinstance(weight, str) else f"{weight:g}",
        "created": datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "last_step": job.last_step,
        "total_steps": job.total_steps,
        "curve": _curve(losses),
        "first_loss": f"{losses[0]:.3f}" if losses else None,
        "last_loss": f"{losses[-1]:.3f}" if losses else None,
        "error": job.error and without_paths(job.error["message"], folder.root, {}),
        "reason": result and result["reason"],
        "tuned": None if job.is_model_deleted else job.fine_tuned_model,
        "has_report": SweepFolder(folder.job(job.id).sweep).report_html.exists(),
    }


def _curve(losses: Sequence[float]) -> str:
    """Return the points of an SVG polyline in a 100 x 100 box; empty for fewer than two."""
    if len(losses) < 2:
        return ""
    low, high = min(losses), max(losses)
    span = high - low or 1.0
    last = len(losses) - 1
    return " ".join(
        f"{100 * i / last:.2f},{95 - 90 * (loss - low) / span:.2f}" for i, loss in enumerate(losses)
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("jobs.html.j2")
