"""Routes of /v1/models, and of chat and completions, which a model server answers."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse

from orchestrator.serve.access import Access
from orchestrator.serve.config import ServeConfig
from orchestrator.serve.errors import ApiError, invalid_value, missing_parameter, no_such_model
from orchestrator.serve.job_routes import read_json_body
from orchestrator.serve.model_servers import ModelServers
from orchestrator.serve.paths import DataFolder, without_paths
from orchestrator.serve.query import json_answer
from orchestrator.serve.records import ORGANIZATION, page
from orchestrator.serve.store import Store

_TIMEOUT = httpx2.Timeout(600.0, connect=10.0)


class Models:
    """Base models of the configuration, and the tuned models of each owner."""

    def __init__(
        self, store: Store, folder: DataFolder, config: ServeConfig, servers: ModelServers
    ) -> None:
        self._store, self._folder, self._config = store, folder, config
        self._servers = servers
        self._started_at = int(time.time())

    def list(self, owner: str) -> list[dict[str, Any]]:
        """Return the model objects that `owner` sees."""
        base = [_model(name, self._started_at) for name in self._config.models]
        tuned = self._store.tuned_models(owner)
        return base + [_model(job.model_name, job.finished_at or 0) for job in tuned]

    def get(self, name: str, owner: str) -> dict[str, Any]:
        """Return a model object.

        Raises:
            ApiError: there is no such model.
        """
        if name in self._config.models:
            return _model(name, self._started_at)
        job = self._store.job_of_model(name, owner)
        if job is None:
            raise no_such_model(name)
        return _model(name, job.finished_at or 0)

    def delete(self, name: str, owner: str) -> None:
        """Delete a tuned model.

        Raises:
            ApiError: there is no such model, or it is a base model.
        """
        if name in self._config.models:
            raise ApiError(
                403,
                f"The base model '{name}' cannot be deleted.",
                param="model",
                code="model_not_deletable",
            )
        job = self._store.job_of_model(name, owner)
        if job is None:
            raise no_such_model(name)
        self._store.update_job(job.id, is_model_deleted=True)
        folder = self._folder.job(job.id)
        self._servers.stop(str(folder.model))
        folder.remove_model()

    async def forward(self, endpoint: str, body: Any, owner: str) -> Response:
        """Return the answer of the model's server to a request, streamed if it is.

        Raises:
            ApiError: the model does not exist or cannot be served.
        """
        if not isinstance(body, dict):
            raise ApiError(400, "The body of the request must be a JSON object.")
        name = body.get("model")
        if name is None:
            raise missing_parameter("model")
        if not isinstance(name, str):
            raise invalid_value("model", "'model' must be a string.", "invalid_type")
        if endpoint == "chat/completions":
            _check_messages(body.get("messages"))
        stack = AsyncExitStack()
        try:
            url, served_name = await self._server_of(name, owner, stack)
            http = await stack.enter_async_context(
                httpx2.AsyncClient(timeout=_TIMEOUT, trust_env=False)
            )
            request = http.build_request(
                "POST", f"{url}/{endpoint}", json={**body, "model": served_name}
            )
            answer = await http.send(request, stream=True)
            stack.push_async_callback(answer.aclose)
            if not answer.is_success:
                raise self._upstream_error(answer.status_code, await answer.aread())
            is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
            if not is_stream:
                content = _renamed(await answer.aread(), served_name, name)
                await stack.aclose()
                return Response(content, media_type="application/json")
            lines = _renamed_lines(answer, served_name, name, stack)
            return StreamingResponse(lines, media_type="text/event-stream")
        except httpx2.TransportError:
            await stack.aclose()
            raise ApiError(
                502,
                "The model's server did not answer.",
                type="server_error",
                code="model_server_error",
            ) from None
        except BaseException:
            await stack.aclose()
            raise

    async def _server_of(self, name: str, owner: str, stack: AsyncExitStack) -> tuple[str, str]:
        """Return the URL with /v1 of the model's server, and the model's name there."""
        entry = self._config.models.get(name)
        if entry is not None and entry.url is not None:
            return entry.url.rstrip("/"), name
        if entry is not None:
            path = entry.path
        else:
            job = self._store.job_of_model(name, owner)
            if job is None:
                raise no_such_model(name)
            path = str(self._folder.job(job.id).model)
        url, served_name = await stack.enter_async_context(self._servers.use(path))
        return f"{url}/v1", served_name

    def _upstream_error(self, status: int, content: bytes) -> ApiError:
        """Return the error of a model server in the form of the API."""
        text = content.decode("utf-8", "replace")
        try:
            found = json.loads(text)
            error = found.get("error", found)
            text = str(error.get("message") or error.get("detail") or text)
        except (ValueError, AttributeError):
            pass
        is_client = status < 500
        return ApiError(
            400 if status == 422 else status,
            without_paths(text, self._folder.root, {}),
            type="invalid_request_error" if is_client else "server_error",
        )


def model_routes(models: Models, access: Access) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()
    Owner = Depends(access.owner)

    @routes.get("/models")
    async def list_models(owner: str = Owner) -> Response:
        return json_answer(page(models.list(owner), has_more=False))

    @routes.get("/models/{name:path}")
    async def retrieve(name: str, owner: str = Owner) -> Response:
        return json_answer(models.get(name, owner))

    @routes.delete("/models/{name:path}")
    def delete(name: str, owner: str = Owner) -> Response:
        models.delete(name, owner)
        return json_answer({"id": name, "object": "model", "deleted": True})

    @routes.post("/chat/completions")
    async def chat(request: Request, owner: str = Owner) -> Response:
        return await models.forward("chat/completions", await read_json_body(request), owner)

    @routes.post("/completions")
    async def completions(request: Request, owner: str = Owner) -> Response:
        return await models.forward("completions", await read_json_body(request), owner)

    return routes


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": ORGANIZATION}


def _check_messages(messages: Any) -> None:
    """Check the form of a chat, which transformers serve answers with an internal error.

    Raises:
        ApiError: it is not a list of messages with roles.
    """
    if messages is None:
        raise missing_parameter("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise invalid_value("messages", "'messages' must be an array of objects.", "invalid_type")
    if not messages:
        raise invalid_value("messages", "'messages' must not be empty.", "empty_array")
    for index, one in enumerate(messages):
        if not isinstance(one.get("role"), str):
            raise missing_parameter(f"messages[{index}].role")


def _renamed(content: bytes, served_name: str, name: str) -> bytes:
    """Return an answer with the public name of the model in place of its folder."""
    # transformers serve appends the revision.
    for served in (f"{served_name}@main", served_name):
        content = content.replace(
            json.dumps(served)[1:-1].encode(), json.dumps(name)[1:-1].encode()
        )
    return content


async def _renamed_lines(
    answer: httpx2.Response, served_name: str, name: str, stack: AsyncExitStack
) -> AsyncIterator[bytes]:
    async with stack:
        async for line in answer.aiter_lines():
            yield _renamed(line.encode(), served_name, name) + b"\n"
