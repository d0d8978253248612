"""Authorisation: the routes' dependencies on a key, or on the upload token that stands for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import HTTPException, Security
from fastapi.security import APIKeyHeader
from starlette.concurrency import run_in_threadpool

from ..keys import Keys

REFUSED = "No user found for Key ID and Secret"
_KEY = Security(
    APIKeyHeader(name="Authorization", auto_error=False, description="`Key <id>:<secret>`")
)

Dependency = Callable[[str | None], Awaitable[str]]


def require_key(keys: Keys) -> Dependency:
    """A dependency: the id of the request's key, or 401."""

    async def key_id(authorization: str | None = _KEY) -> str:
        return _known(await _ask(keys, keys.check, authorization))

    return key_id


def require_key_or_token(keys: Keys) -> Dependency:
    """A dependency: the id of the request's key, or of its upload token's key, or 401."""

    def check(authorization: str | None) -> str | None:
        return keys.check(authorization) or keys.check_token(authorization)

    async def key_id(authorization: str | None = _KEY) -> str:
        return _known(await _ask(keys, check, authorization))

    return key_id


async def _ask(
    keys: Keys, check: Callable[[str | None], str | None], authorization: str | None
) -> str | None:
    if keys.remembers(authorization):  # nearly always: a thread would cost more than the answer
        return check(authorization)
    return await run_in_threadpool(check, authorization)


def _known(key_id: str | None) -> str:
    if key_id is None:
        raise HTTPException(401, REFUSED, {"WWW-Authenticate": "Key"})
    return key_id
