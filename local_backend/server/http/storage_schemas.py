"""What the routes of uploads take and answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from ..storage.uploads import MOST_PARTS


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
