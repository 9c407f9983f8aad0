"""The web application: routes of OpenAI's API for files, jobs and models, and the page `/`."""

import errno
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from orchestrator.serve.access import Access, RateLimit
from orchestrator.serve.config import ServeConfig
from orchestrator.serve.errors import ApiError
from orchestrator.serve.file_routes import file_routes
from orchestrator.serve.job_routes import job_routes
from orchestrator.serve.jobs import Jobs
from orchestrator.serve.keys import Keys
from orchestrator.serve.model_routes import Models, model_routes
from orchestrator.serve.model_servers import ModelServers
from orchestrator.serve.page_routes import page_routes
from orchestrator.serve.paths import DataFolder
from orchestrator.serve.request_limits import RequestLimits
from orchestrator.serve.runner import Runner
from orchestrator.serve.store import Store
from orchestrator.serve.uploads import Files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """The state that the routes share, for the data in one folder."""

    config: ServeConfig
    folder: DataFolder
    store: Store
    files: Files
    jobs: Jobs
    runner: Runner
    access: Access
    servers: ModelServers
    models: Models

    @classmethod
    def open(cls, config: ServeConfig, folder: DataFolder) -> "Service":
        """Open the data; the caller holds the lock of the folder."""
        folder.root.mkdir(parents=True, exist_ok=True)
        store = Store(folder.database)
        files = Files(store, folder, config)
        runner = Runner(store, folder, config, files)
        jobs = Jobs(store, folder, config, files, runner.wake)
        access = Access(Keys(folder.root), RateLimit(config.limits.requests_per_minute))
        servers = ModelServers(config.inference)
        models = Models(store, folder, config, servers)
        return cls(config, folder, store, files, jobs, runner, access, servers, models)


def create_app(service: Service) -> FastAPI:
    """Return the application. It runs jobs while it is served."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.runner.start()
        yield
        service.servers.close()
        service.runner.close()

    app = FastAPI(title="plw serve", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.openapi_url = None
    v1 = APIRouter(prefix="/v1")
    v1.include_router(file_routes(service.files, service.store, service.access))
    v1.include_router(job_routes(service.jobs, service.store, service.access))
    v1.include_router(model_routes(service.models, service.access))
    app.include_router(v1)
    app.include_router(page_routes(service.jobs, service.store, service.folder, service.access))
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(RequestLimits, limits=service.config.limits)
    return app


def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"Invalid URL ({request.method} {request.url.path})"
    if error.status_code == 405:
        message = f"Method not allowed: {request.method} {request.url.path}"
    elif error.status_code != 404:
        message = str(error.detail)
    return _api_error(request, ApiError(error.status_code, message))


def _unexpected(request: Request, error: Exception) -> Response:
    """Answer 500; the log has the cause, which may contain paths."""
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    is_full |= isinstance(error, sqlite3.OperationalError) and "full" in str(error)
    status, code = 500, None
    message = "The server had an error while processing your request."
    if is_full:
        status, code, message = 507, "disk_full", "The disk of the server is full."
    # uvicorn closes the connection after an error, so the client must not use it again.
    headers = {"Connection": "close"}
    error = ApiError(status, message, type="server_error", code=code, headers=headers)
    return _api_error(request, error)
