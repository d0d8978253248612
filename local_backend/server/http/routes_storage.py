"""The routes of uploads and files, as fal's Python and JavaScript clients ask for them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from ....nodes.errors import InputError
from ..keys import Keys
from ..settings import Settings
from ..storage.expiry import lifetime
from ..storage.files import IMAGE_TYPES, OTHER_TYPE, Files, UploadError
from ..storage.uploads import MOST_PARTS, complete, store, store_part
from .auth import REFUSED, require_key, require_key_or_token

Number = Annotated[int, Path(ge=1, le=MOST_PARTS)]
StorageType = Annotated[str, Query(description="`fal-cdn-v3` or `gcs`: both are this server")]
_Answers = dict[int | str, dict[str, Any]]
GUARDED: _Answers = {401: {"description": "no good key"}, 413: {"description": "too large"}}
OPEN: _Answers = {
    403: {"description": "made before"},
    404: {"description": "unknown"},
    413: GUARDED[413],
}
# FastAPI does not see a body that is read as it comes
BYTES = {"schema": {"type": "string", "format": "binary"}}
RAW = {"requestBody": {"required": True, "content": {OTHER_TYPE: BYTES}}}
FILE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private",
}


class TokenAnswer(BaseModel):
    token: str
    token_type: Literal["Bearer"] = "Bearer"
    base_url: str
    expires_at: str = Field(description="ISO 8601 with an offset")


class Initiate(BaseModel):
    content_type: Annotated[str, Field(max_length=200)]
    file_name: Annotated[str, Field(max_length=1024)]


class InitiateAnswer(BaseModel):
    upload_url: str = Field(description="PUT the bytes there; it needs no key and works once")
    file_url: str


class UploadAnswer(BaseModel):
    access_url: str


class MultipartAnswer(UploadAnswer):
    uploadId: str


class Part(BaseModel):
    partNumber: Annotated[int, Field(ge=1, le=MOST_PARTS)]
    etag: Annotated[str, Field(max_length=100)]


class Parts(BaseModel):
    parts: Annotated[list[Part], Field(min_length=1, max_length=MOST_PARTS)]


def make_router(files: Files, keys: Keys, settings: Settings) -> APIRouter:
    """All of storage. Needs no state but the database and the files folder."""
    router = APIRouter(tags=["storage"])
    _token(router, keys, settings)
    _direct(router, files, keys, settings)
    _multipart(router, files, keys, settings)
    _presigned(router, files, keys, settings)
    _presigned_parts(router, files, keys, settings)
    _download(router, files)
    return router


def _token(router: APIRouter, keys: Keys, settings: Settings) -> None:
    known = Depends(require_key(keys))

    @router.post("/storage/auth/token", responses={401: GUARDED[401]})
    def token(storage_type: StorageType = "fal-cdn-v3", key_id: str = known) -> TokenAnswer:
        """A token for uploads, good for an hour."""
        _check_type(storage_type)
        made = keys.token(key_id)
        if made is None:
            raise HTTPException(401, REFUSED)
        ends = datetime.fromtimestamp(made.expires, timezone.utc).isoformat()
        return TokenAnswer(token=made.text, base_url=settings.public_url, expires_at=ends)


def _direct(router: APIRouter, files: Files, keys: Keys, settings: Settings) -> None:
    known = Depends(require_key_or_token(keys))

    @router.post("/files/upload", responses=GUARDED, openapi_extra=RAW)
    async def upload(request: Request, key_id: str = known) -> UploadAnswer:
        """The body is the file, whole."""
        name = await run_in_threadpool(_begin, files, settings, key_id, request, None)
        try:
            with _refusals():
                await store(files, name, request.stream())
        except BaseException:  # nobody else knows the name
            await asyncio.shield(run_in_threadpool(files.forget, name))
            raise
        return UploadAnswer(access_url=files.url(name))


def _multipart(router: APIRouter, files: Files, keys: Keys, settings: Settings) -> None:
    """The Python client's: with the token, and the part's ETag in a header."""
    known = Depends(require_key_or_token(keys))

    @router.post("/files/upload/multipart", responses=GUARDED)
    def begin(request: Request, key_id: str = known) -> MultipartAnswer:
        """Start a file that comes in parts."""
        name = _begin(files, settings, key_id, request, None)
        return MultipartAnswer(access_url=files.url(name), uploadId=_upload_id(name))

    @router.put(
        "/files/{name}/multipart/{upload_id}/{number}",
        responses=GUARDED | OPEN,
        openapi_extra=RAW,
    )
    async def part(
        request: Request,
        response: Response,
        name: str,
        upload_id: str,
        number: Number,
        key_id: str = known,
    ) -> Part:
        """The body is one part."""
        with _refusals():
            _check_upload(name, upload_id)
            etag = await store_part(files, name, number, request.stream(), key_id)
        response.headers["ETag"] = etag
        return Part(partNumber=number, etag=etag)

    @router.post("/files/{name}/multipart/{upload_id}/complete", responses=GUARDED | OPEN)
    def end(name: str, upload_id: str, parts: Parts, key_id: str = known) -> UploadAnswer:
        """Put the parts together, by their numbers."""
        with _refusals():
            _check_upload(name, upload_id)
            complete(files, name, key_id, [(one.partNumber, one.etag) for one in parts.parts])
        return UploadAnswer(access_url=files.url(name))


def _presigned(router: APIRouter, files: Files, keys: Keys, settings: Settings) -> None:
    known = Depends(require_key(keys))

    @router.post("/storage/upload/initiate", responses=GUARDED)
    def initiate(
        request: Request,
        file: Initiate,
        storage_type: StorageType = "fal-cdn-v3",
        key_id: str = known,
    ) -> InitiateAnswer:
        """An address to upload one file to, without the key."""
        _check_type(storage_type)
        name = _begin(files, settings, key_id, request, file.content_type)
        upload_url = f"{settings.public_url}/upload/{name}"
        return InitiateAnswer(upload_url=upload_url, file_url=files.url(name))

    @router.put("/upload/{name}", responses=OPEN, openapi_extra=RAW)
    async def put(request: Request, name: str) -> dict[str, str]:
        """The body is the file, whole. The name in the address is all the permission there is."""
        with _refusals():
            await store(files, name, request.stream())
        return {}


def _presigned_parts(router: APIRouter, files: Files, keys: Keys, settings: Settings) -> None:
    """The JavaScript client's: without a key, and the part's ETag in the body."""
    known = Depends(require_key(keys))

    @router.post("/storage/upload/initiate-multipart", responses=GUARDED)
    def initiate(
        request: Request,
        file: Initiate,
        storage_type: StorageType = "fal-cdn-v3",
        key_id: str = known,
    ) -> InitiateAnswer:
        """An address to upload one file to in parts, without the key."""
        _check_type(storage_type)
        name = _begin(files, settings, key_id, request, file.content_type)
        upload_url = f"{settings.public_url}/upload/{name}/multipart"
        return InitiateAnswer(upload_url=upload_url, file_url=files.url(name))

    @router.put("/upload/{name}/multipart/{number}", responses=OPEN, openapi_extra=RAW)
    async def part(request: Request, name: str, number: Number) -> Part:
        """The body is one part."""
        with _refusals():
            etag = await store_part(files, name, number, request.stream())
        return Part(partNumber=number, etag=etag)

    @router.post("/upload/{name}/multipart/complete", responses=OPEN)
    def end(name: str, parts: Parts) -> dict[str, str]:
        """Put the parts together, by their numbers."""
        with _refusals():
            complete(files, name, None, [(one.partNumber, one.etag) for one in parts.parts])
        return {}


def _download(router: APIRouter, files: Files) -> None:
    @router.head("/files/{name}", include_in_schema=False)
    @router.get("/files/{name}", response_class=FileResponse, responses={404: OPEN[404]})
    def file(name: str) -> FileResponse:
        """A file, until it expires. Pictures come as what they are, all else as a download."""
        found = files.find(name)
        try:
            facts = os.stat(found[0]) if found else None
        except FileNotFoundError:
            facts = None
        if found is None or facts is None:
            raise HTTPException(404, "There is no such file, or not any more.")
        shown = found[1] in IMAGE_TYPES
        return FileResponse(
            found[0],
            media_type=found[1] if shown else OTHER_TYPE,
            filename=name,
            content_disposition_type="inline" if shown else "attachment",
            headers=FILE_HEADERS,
            stat_result=facts,
        )


def _begin(
    files: Files, settings: Settings, key_id: str, request: Request, content_type: str | None
) -> str:
    declared = request.headers.get("content-type", "") if content_type is None else content_type
    with _refusals():
        return files.begin(key_id, declared, lifetime(request.headers, settings))


def _upload_id(name: str) -> str:
    return name.partition("-")[2].partition(".")[0]


def _check_upload(name: str, upload_id: str) -> None:
    if upload_id != _upload_id(name):
        raise UploadError(404, "There is no such upload. Start it again.")


def _check_type(storage_type: str) -> None:
    if storage_type not in ("fal-cdn-v3", "gcs"):
        raise HTTPException(
            400, f"storage_type {storage_type[:40]!r} is not known: give fal-cdn-v3."
        )


@contextmanager
def _refusals() -> Iterator[None]:
    """What goes wrong with an upload, as an answer."""
    try:
        yield
    except UploadError as error:
        raise HTTPException(error.status, error.message) from error
    except InputError as error:
        raise HTTPException(400, str(error)) from error
    except ClientDisconnect as error:
        raise HTTPException(400, "The upload broke off.") from error
