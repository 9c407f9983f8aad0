"""Limit the size of each request's body, and the wait for its next bytes."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from orchestrator.serve.config import LimitsConfig
from orchestrator.serve.errors import ApiError
from orchestrator.serve.uploads import too_large

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_MIB = 2**20
_JSON_MIB = 32
# Of the multipart form around a file.
_FORM_BYTES = 64 * 1024
UPLOAD_PATH = "/v1/files"


class RequestLimits:
    """ASGI middleware: 413 for a body that is too large, 408 for one that stops arriving."""

    def __init__(self, app: App, limits: LimitsConfig) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"] == UPLOAD_PATH
        allowed = self._limits.file_mib * _MIB + _FORM_BYTES if is_upload else _JSON_MIB * _MIB
        num_bytes = 0
        is_complete = has_started = False

        async def limited_receive() -> Message:
            nonlocal num_bytes, is_complete
            if is_complete:  # Only the end of the connection can follow.
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._limits.idle_s)
            except TimeoutError:
                raise ApiError(
                    408, "The body of the request did not arrive in time.", code="request_timeout"
                ) from None
            if message["type"] == "http.request":
                num_bytes += len(message.get("body", b""))
                is_complete = not message.get("more_body", False)
                if num_bytes > allowed:
                    raise self._too_large(is_upload)
            return message

        async def noted_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            length = dict(scope["headers"]).get(b"content-length", b"0")
            if length.isdigit() and int(length) > allowed:
                raise self._too_large(is_upload)
            await self._app(scope, limited_receive, noted_send)
        except ApiError as error:
            if has_started:
                raise
            headers = {**error.headers, "Connection": "close"}
            response = JSONResponse(error.body(), error.status, headers)
            await response(scope, receive, send)

    def _too_large(self, is_upload: bool) -> ApiError:
        if is_upload:
            return too_large(self._limits.file_mib)
        message = f"The body of the request is larger than {_JSON_MIB} MiB."
        return ApiError(413, message, code="request_too_large")
