"""Uploads and downloads of pictures: data URIs, fal's storage, and the files of a result."""

from __future__ import annotations

from functools import partial
from urllib.parse import urljoin

from torch import Tensor

from ..errors import InputError, OneRewardError, RemoteError
from ..image_io import data_uri, decode_image, encode_png, from_data_uri
from .cancellation import Cancellation
from .client import FalClient
from .endpoints import Server, host_of
from .error_mapping import error_of, tidy
from .retry import ATTEMPTS, Retry, ask_idempotent, download_backoff
from .schemas import File, lifecycle
from .transport import ConnectionLost, NoAuth, Reply, exchange, new_session

PNG = "image/png"
LARGEST_URI_IMAGE = 6_000_000  # bytes of PNG; larger pictures are uploaded instead
LARGEST_URI_MASK = 2_000_000
LARGEST_FILE = 64 << 20
UPLOAD_LIFETIME = 3600  # seconds; a private job may wait in the queue for that long
UPLOAD_TIMEOUT = (10.0, 300.0)
DOWNLOAD_TIMEOUT = (10.0, 120.0)
REDIRECTS = 3


def picture_url(
    client: FalClient, picture: Tensor, private: bool, cancellation: Cancellation
) -> str:
    """A URL the service can read the crop from: [h, w, 3] in 0..1, or a mask [h, w].

    Raises:
        RemoteError: the upload failed.
    """
    data = encode_png(picture, fast=True)
    limit = LARGEST_URI_MASK if picture.ndim == 2 else LARGEST_URI_IMAGE
    return (
        data_uri(data, PNG) if len(data) <= limit else _upload(client, data, private, cancellation)
    )


def fetch(
    client: FalClient, file: File, request_id: str, most_pixels: int, cancellation: Cancellation
) -> tuple[bytes, Tensor]:
    """A result image: its bytes, proven to be a whole picture of the size the service says, and its
    pixels, float [h, w, 3].

    Args:
        most_pixels: a larger picture is not opened.

    Raises:
        RemoteError: it lies on a foreign host, or ATTEMPTS gave no such picture.
    """
    attempts = 1 if file.url.startswith("data:") else ATTEMPTS
    failures = (InputError, ConnectionLost, _BadReply)
    retry = Retry[tuple[bytes, Tensor]](download_backoff, failures, attempts)

    def attempt() -> tuple[bytes, Tensor]:
        data = _bytes_of(client, file.url, cancellation)
        return data, _decoded(data, most_pixels, file)

    try:
        return retry.run(attempt, cancellation)
    except (InputError, RemoteError, _BadReply) as error:
        raise _not_fetched(error.args[0], request_id) from None


def _not_fetched(trouble: str, request_id: str) -> RemoteError:
    return RemoteError(
        f"The result image could not be fetched: {trouble} It is paid for: running the same again, "
        "with the same seed, tries to fetch it again.",
        request_id=request_id,
        may_be_billed=True,
    )


class _BadReply(OneRewardError):
    """An answer that is no file; another try may bring one."""


def _upload(client: FalClient, data: bytes, private: bool, cancellation: Cancellation) -> str:
    headers = {"X-Fal-Object-Lifecycle": lifecycle(UPLOAD_LIFETIME)} if private else {}
    url = f"{client.server.storage_url}/storage/upload/initiate?storage_type=fal-cdn-v3"
    wanted = {"content_type": PNG, "file_name": "crop.png"}
    reply = client.post(url, wanted, headers, cancellation)
    if not reply.ok:
        raise error_of(reply, server=client.server.name)
    place = reply.json()
    upload_url, file_url = (
        place.get(name) if isinstance(place, dict) else None for name in ("upload_url", "file_url")
    )
    for address in (upload_url, file_url):
        if not isinstance(address, str) or not client.server.holds_file(address):
            raise RemoteError(
                f"{client.server.name} wants the picture uploaded to {host_of(address)}, which is "
                "not one of its own hosts. Nothing was sent there. A smaller target on OneReward "
                "Canvas needs no upload."
            )
    reply = ask_idempotent(partial(_put, client.server, str(upload_url), data), cancellation)
    if not reply.ok:
        raise RemoteError(
            f"The picture could not be uploaded: {host_of(upload_url)} answered {reply.status}. "
            "Try again later; a smaller target on OneReward Canvas needs no upload.",
            status=reply.status,
        )
    return str(file_url)


def _put(server: Server, url: str, data: bytes) -> Reply:
    with new_session(server.ca) as session:
        return exchange(
            session, "PUT", url, auth=NoAuth(), timeout=UPLOAD_TIMEOUT,
            headers={"Content-Type": PNG}, data=data,
        )  # fmt: skip


def _bytes_of(client: FalClient, url: str, cancellation: Cancellation) -> bytes:
    if url.startswith("data:"):
        return from_data_uri(url)
    for _ in range(REDIRECTS + 1):
        if not client.server.holds_file(url):
            raise RemoteError(
                f"The result lies on {host_of(url)}, which is not one of {client.server.name}'s "
                "hosts, so it was not fetched."
            )
        reply = cancellation.call(partial(_get, client.server, url))
        if not (300 <= reply.status < 400 and "Location" in reply.headers):
            break
        url = _next(url, reply.headers["Location"])
    kind = reply.headers.get("Content-Type", "").split(";")[0].lower()
    if reply.status != 200 or not kind.startswith(("image/", "application/octet-stream")):
        raise _BadReply(f'{host_of(url)} answered {reply.status} with "{tidy(kind)}".')
    return reply.body


def _next(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:  # no address at all; the caller refuses it like any foreign one
        return location


def _get(server: Server, url: str) -> Reply:
    with new_session(server.ca) as session:
        return exchange(
            session, "GET", url, auth=NoAuth(), timeout=DOWNLOAD_TIMEOUT, max_bytes=LARGEST_FILE
        )


def _decoded(data: bytes, most_pixels: int, file: File) -> Tensor:
    picture = decode_image(data, most_pixels)[0, ..., :3]
    height, width = picture.shape[:2]
    if (file.width or width, file.height or height) != (width, height):
        raise InputError(
            f"The picture is {width}x{height}, but the service says {file.width}x{file.height}."
        )
    return picture
