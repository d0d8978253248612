"""What the operator of a server may set, from the command line or from a cluster's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ...nodes.contracts import PRECISIONS
from ...nodes.errors import InputError

MEGABYTE = 1 << 20
SQLITE_FILE = "server.sqlite3"  # in the data folder, where no other database is given


class Settings(BaseModel):
    """One server. All heads of a cluster share the same.

    Raises pydantic's ValidationError for a value that breaks a rule.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str = Field("fal-ai/onereward", description="the model's id, as clients name it")
    public_url: str = Field(
        "http://127.0.0.1:8000", description="where clients reach the server; its answers say so"
    )
    data: Path = Field(
        Path("onereward-server"), description="the folder of jobs, keys and files, made if missing"
    )
    database: str = Field(
        "", description="an SQLAlchemy URL for jobs and keys; default: sqlite in the data folder"
    )
    models: Path | None = Field(
        None, description="a folder with the files of a FLUX.1-Fill; default: the preview model"
    )
    precision: str = Field("auto", description="how the models' weights are held, as in the node")
    compile: bool = Field(False, description="compile the models' blocks, once a start")
    max_queue: int = Field(1000, ge=1, description="jobs that may wait; more are refused by 429")
    submits_per_minute: int = Field(600, ge=1, description="jobs a key may send in a minute")
    max_body_mb: int = Field(64, ge=1, description="the largest job, in MB of JSON")
    max_upload_mb: int = Field(256, ge=1, description="the largest uploaded file, in MB")
    max_storage_mb: int = Field(4096, ge=1, description="what a key's live uploads may add up to")
    max_megapixels: int = Field(64, ge=1, description="larger pictures are not opened")
    max_images: int = Field(8, ge=1, description="pictures a job may ask for")
    keep_hours: float = Field(24.0, gt=0, description="results and files are deleted after that")
    job_timeout: float = Field(900.0, gt=0, description="seconds a job may run")
    allow_hosts: tuple[str, ...] = Field(
        (), description="hosts of this network that image URLs may name all the same"
    )
    cors_origins: tuple[str, ...] = Field((), description="web pages that may call the server")
    # a cluster only
    min_replicas: int = Field(1, ge=0, description="workers that are always up")
    max_replicas: int = Field(0, ge=0, description="workers at most; 0: one for each GPU, or one")
    gpus: float | None = Field(None, ge=0, description="GPUs per worker; default: 1 if any")
    heads: int = Field(1, ge=1, description="HTTP heads; more than one needs Postgres")

    @field_validator("precision")
    @classmethod
    def _known_precision(cls, precision: str) -> str:
        if precision not in PRECISIONS:
            raise ValueError(f"use one of {', '.join(PRECISIONS)}")
        return precision

    @field_validator("public_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ValueError("give an http:// or https:// address, such as https://gpu.example.com")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _several_heads(self) -> Settings:
        if self.heads > 1 and not self.database.startswith("postgresql"):
            raise ValueError(
                f"{self.heads} heads cannot share an sqlite file. Give database as a "
                "postgresql+psycopg://user:password@host/name URL."
            )
        return self

    @property
    def database_url(self) -> str:
        """Where jobs and keys are."""
        return self.database or f"sqlite:///{self.data.resolve() / SQLITE_FILE}"

    @property
    def files(self) -> Path:
        """The folder of uploads and results. Several heads need it shared."""
        return self.data / "files"

    @property
    def keep_seconds(self) -> float:
        return self.keep_hours * 3600


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Raises InputError that names every value at fault, and its rule."""
    try:
        return Settings(**values)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, one['loc'])) or 'settings'}: {one['msg']}"
            for one in error.errors()
        ]
        raise InputError(f"These settings cannot be used: {'; '.join(faults)}.") from error
