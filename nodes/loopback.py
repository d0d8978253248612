"""Loopback: which host names are this machine. One rule for servers, pages and the command line."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str | None) -> bool:
    """Whether a host name or IP address is this machine and nobody else's: "localhost", 127.0.0.0/8
    or ::1; also an IPv4 one inside IPv6 (::ffff:127.0.0.1), as which a machine that listens on all
    addresses may see itself. No name is looked up.
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or bool(mapped and mapped.is_loopback)
