"""OpenAI's file routes: upload, list, read, download, delete."""

import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from api.batches.descriptions import describe_file
from api.dependencies import AppState, AppStateDep, JobOwnerDep, RerankOwnerDep
from api.files.service import MAX_FILE_SECONDS
from api.http.multipart import MultipartUpload
from api.http.responses import json_response
from api.openapi.batch_schemas import (
    EXAMPLE_FILE,
    EXAMPLE_FILE_ID,
    EXAMPLE_FILES,
    UPLOAD_DOC,
    DeletedFile,
    StoredFile,
    StoredFiles,
)
from api.openapi.schemas import response_doc
from api.routes.job_queries import INVALID_PARAMETER
from api.routes.pages import describe_list, list_parameters, read_newest_first, read_number
from shared.errors import InvalidRequest
from shared.ledger.batch_record import FileRecord, new_file_id

router = APIRouter(prefix="/v1/files", tags=["files"])

_Responses = dict[int | str, dict[str, Any]]
_NOT_FOUND = {"description": "There is no such file, or it belongs to another key."}
_ONE: _Responses = {200: response_doc(StoredFile, EXAMPLE_FILE, "The file.")}
_READ: _Responses = _ONE | {404: _NOT_FOUND}
_UPLOAD: _Responses = _ONE | {
    400: {"description": "The form is malformed or incomplete."},
    413: {"description": "The file is over the limit."},
    507: {"description": "There is no room for the file."},
}
_LIST: _Responses = {
    200: response_doc(StoredFiles, EXAMPLE_FILES, "A page of files."),
    400: INVALID_PARAMETER,
    404: _NOT_FOUND,
}
_DELETED = {"id": EXAMPLE_FILE_ID, "object": "file", "deleted": True}
_DELETE: _Responses = {
    200: response_doc(DeletedFile, _DELETED, "The file is deleted."),
    404: _NOT_FOUND,
    409: {"description": "An unfinished batch reads the file."},
}
_CONTENT: _Responses = {
    200: {"description": "The content.", "content": {"application/jsonl": {"example": '{"custom_id":"first"}\n'}}},
    404: _NOT_FOUND,
}

MAX_LIMIT = 10_000
PURPOSE = "batch"
_MIN_SECONDS = 60
_UNSAFE = re.compile(r"[^A-Za-z0-9._ -]")


@router.post("", responses=_UPLOAD, openapi_extra=UPLOAD_DOC)
async def upload_file(request: Request, state: AppStateDep, owner: RerankOwnerDep) -> Response:
    """Upload a file of requests, one JSON object a line, as multipart/form-data with `purpose` and `file`."""
    upload = MultipartUpload(request, max_file_bytes=state.files.limits.max_bytes)
    file_id = new_file_id()
    stored = await state.files.store(file_id, upload.file())
    try:
        purpose, seconds = _read_purpose(upload.fields), _read_lifetime(upload.fields)
        record = await state.files.create(owner, file_id, upload.filename, purpose, stored, seconds)
    except InvalidRequest:
        # After other errors the record may exist. Otherwise the sweeper deletes the object.
        await state.files.discard(stored[0])
        raise
    return json_response(describe_file(record))


@router.get("", responses=_LIST, openapi_extra=list_parameters("purpose", "order"))
async def list_files(request: Request, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """The caller's files, newest first."""
    query = request.query_params
    limit = read_number(query, "limit", MAX_LIMIT, 1, MAX_LIMIT)
    records, has_more = await state.files.page(
        owner, limit, query.get("after"), query.get("purpose"), newest_first=read_newest_first(query)
    )
    return json_response(describe_list([describe_file(record) for record in records], has_more))


@router.get("/{file_id}", responses=_READ)
async def read_file(file_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """A file's size, name and lifetime."""
    return json_response(describe_file(await state.files.read(file_id, owner)))


@router.get("/{file_id}/content", responses=_CONTENT, response_class=StreamingResponse)
async def read_content(file_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """The file itself."""
    record = await state.files.read(file_id, owner)
    return await _download(state, record)


@router.delete("/{file_id}", responses=_DELETE)
async def delete_file(file_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Delete a file. 409 while a batch reads it."""
    await state.files.delete(file_id, owner)
    return json_response({"id": file_id, "object": "file", "deleted": True})


async def _download(state: AppState, record: FileRecord) -> Response:
    chunks = state.files.content(record)
    # Read the first chunk before the status is sent: the content may no longer exist.
    first = await anext(chunks, b"")
    headers = {
        "Content-Length": str(record.size),
        "Content-Disposition": f'attachment; filename="{_UNSAFE.sub("_", record.filename)}"',
    }
    return StreamingResponse(_chain(first, chunks), headers=headers, media_type="application/jsonl")


async def _chain(first: bytes, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    if first:
        yield first
    async for chunk in chunks:
        yield chunk


def _read_purpose(fields: Mapping[str, str]) -> str:
    purpose = fields.get("purpose")
    if purpose != PURPOSE:
        raise InvalidRequest(f"purpose must be {PURPOSE!r}", param="purpose")
    return purpose


def _read_lifetime(fields: Mapping[str, str]) -> float | None:
    """The seconds of `expires_after`; None without it."""
    anchor, text = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and text is None:
        return None
    if anchor not in (None, "created_at"):
        raise InvalidRequest("expires_after[anchor] must be created_at", param="expires_after[anchor]")
    fields_read = {"expires_after[seconds]": text or ""}
    return read_number(fields_read, "expires_after[seconds]", 0, _MIN_SECONDS, int(MAX_FILE_SECONDS))
