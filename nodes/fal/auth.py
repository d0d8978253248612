"""How a request shows its key, or shows none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from requests.auth import AuthBase

if TYPE_CHECKING:
    from requests import PreparedRequest


class KeyAuth(AuthBase):
    """fal's `Authorization: Key ...`. As an auth object, and not a plain header, because requests
    lets an entry in ~/.netrc replace a header.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Key {self.key}"
        return request

    def __repr__(self) -> str:
        return "KeyAuth(...)"


class NoAuth(AuthBase):
    """Nothing, not even from ~/.netrc: for files, which anyone with the URL may fetch."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        return request
