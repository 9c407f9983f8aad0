"""Routes of /v1/files."""

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from orchestrator.serve.access import Access
from orchestrator.serve.errors import ApiError, invalid_value, missing_parameter, no_such_file
from orchestrator.serve.query import json_answer, read_limit, read_query
from orchestrator.serve.records import page
from orchestrator.serve.store import Store
from orchestrator.serve.uploads import Files

_MAX_PAGE = 10_000
_FORM_FIELDS = ("file", "purpose")


def file_routes(files: Files, store: Store, access: Access) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/files")
    Owner = Depends(access.owner)

    @routes.post("")
    async def create(request: Request, owner: str = Owner) -> Response:
        try:
            form = await request.form(max_files=1, max_fields=10)
        except HTTPException as error:  # Not a form, or a broken one.
            raise invalid_value("file", f"The form cannot be read: {error.detail}") from None
        except ClientDisconnect:
            raise ApiError(400, "The client ended the upload.", code="incomplete_upload") from None
        try:
            unknown = sorted(form.keys() - {*_FORM_FIELDS})
            if unknown:
                message = f"Unknown parameter: '{unknown[0]}'."
                raise invalid_value(unknown[0], message, "unknown_parameter")
            upload, purpose = form.get("file"), form.get("purpose")
            if upload is None:
                raise missing_parameter("file")
            if not isinstance(upload, UploadFile):
                raise invalid_value("file", "'file' must be a file.", "invalid_type")
            if not isinstance(purpose, str):
                raise missing_parameter("purpose")
            name = upload.filename or "upload"
            record = await run_in_threadpool(files.add, owner, name, purpose, upload.file)
        finally:
            await form.close()
        return json_answer(record.public())

    @routes.get("")
    def list_files(request: Request, owner: str = Owner) -> Response:
        query = read_query(request, ("after", "limit", "order", "purpose"))
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid_value("order", f"'order' must be 'asc' or 'desc', got {order!r}.")
        after = query.get("after")
        if after is not None:
            files.get(after, owner)
        found, has_more = store.files(
            owner,
            after=after,
            limit=read_limit(query, default=_MAX_PAGE, top=_MAX_PAGE),
            purpose=query.get("purpose"),
            ascending=order == "asc",
        )
        return json_answer(page([record.public() for record in found], has_more=has_more))

    @routes.get("/{file_id}")
    async def retrieve(file_id: str, owner: str = Owner) -> Response:
        return json_answer(files.get(file_id, owner).public())

    @routes.delete("/{file_id}")
    def delete(file_id: str, owner: str = Owner) -> Response:
        files.delete(file_id, owner)
        return json_answer({"id": file_id, "object": "file", "deleted": True})

    @routes.get("/{file_id}/content")
    def content(file_id: str, owner: str = Owner) -> Response:
        record = files.get(file_id, owner)
        path = files.path(record)
        if not path.exists():  # It was deleted at the same moment.
            raise no_such_file(file_id)
        return FileResponse(path, media_type="application/octet-stream")

    return routes
