"""SSRF guard: which hosts an image URL may lead to (the public internet's, and the operator's own).

url_fetch._Guard enforces it at every connection. SSRF: server-side request forgery, CWE-918.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import quote, urlsplit

_LONGEST = 8192  # characters of a URL
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,252})|[0-9a-f:.]{2,45}", re.ASCII)
_OPEN_PORTS = frozenset({80, 443})
_FREE_PORTS = range(1024, 65536)
_UNICAST = ip_network("2000::/3")
# Global to some Python or other, but they lead somewhere else: IPv4 within IPv6 (Teredo, 6to4),
# examples, protocols' own, 6to4's relays, and where a cloud tells its own machines their secrets.
_REFUSED = tuple(
    ip_network(text)
    for text in ("2001::/23", "2002::/16", "3fff::/20", "192.0.0.0/24",
                 "192.88.99.0/24", "168.63.129.16/32")
)  # fmt: skip
# Threads of its own: names that nobody answers for must not keep the disk's work waiting.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="names")

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


class BadAddressError(ValueError):
    """A URL that is not fetched; the message says why, without its secrets."""


@dataclass(frozen=True)
class Address:
    """A parsed URL. The check and the request both use these parts, so they cannot differ."""

    scheme: str
    host: str  # ASCII, lower case, no brackets
    port: int
    target: str  # path and query

    @property
    def authority(self) -> str:
        """Host and port, as a URL and the Host header have them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default(self.scheme) else f"{host}:{self.port}"


def parse(url: str) -> Address:
    """Raises BadAddressError for what is no plain http:// or https:// URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("ascii" if url.isascii() else "idna").decode()
        query = f"?{parts.query}" if parts.query else ""
        target = quote((parts.path or "/") + query, safe="/?%:@!$&'()*+,;=~")
    except (ValueError, UnicodeError) as error:
        raise BadAddressError("It is not a URL") from error
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise BadAddressError("Only http, https and data URLs are read")
    if len(url) > _LONGEST:
        raise BadAddressError(f"A URL may have {_LONGEST} characters")
    if "@" in parts.netloc:
        raise BadAddressError("A URL with a user name or password is not fetched")
    host = host.lower().removesuffix(".")
    if not _HOST.fullmatch(host) or ("[" in parts.netloc) != (":" in host):
        raise BadAddressError("The URL names no host")
    if port == 0:  # which httpcore would take for the scheme's own
        raise BadAddressError("The URL names no port")
    return Address(scheme, host, port if port is not None else _default(scheme), target)


def is_allowed(address: Address, hosts: Collection[str]) -> bool:
    """Whether the operator named this host, or this host and port."""
    named = {one.lower().removesuffix(".") for one in hosts}
    host = f"[{address.host}]" if ":" in address.host else address.host
    return not named.isdisjoint({address.host, host, f"{host}:{address.port}"})


def is_open_port(port: int) -> bool:
    """Whether web servers are to be expected there, and not a machine's own services."""
    return port in _OPEN_PORTS or port in _FREE_PORTS


def is_public(text: str) -> bool:
    """Whether the address belongs to one machine somewhere on the internet, and says so openly."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and (address.scope_id or address not in _UNICAST):
        return False
    if any(address in network for network in _REFUSED if network.version == address.version):
        return False
    return address.is_global and not _is_special(address)


def _is_special(address: IPv4Address | IPv6Address) -> bool:
    return (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


async def look_up(host: str, port: int) -> Sequence[str]:
    """All addresses of a host, by this machine's resolver.

    Raises:
        OSError: there are none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_THREADS, _getaddrinfo, host, port)
    return list(dict.fromkeys(found))


def _getaddrinfo(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is too long
        raise OSError("no such host") from error
    return [str(info[4][0]) for info in found]


def _default(scheme: str) -> int:
    return 443 if scheme == "https" else 80
