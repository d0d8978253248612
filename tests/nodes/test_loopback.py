"""Which hosts are this machine."""

from __future__ import annotations

import pytest
from onereward_pack.nodes.loopback import is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", [
    None, "", "0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "localhost.example",
    "127.0.0.1.nip.io", "2130706433", "[::1]", "LOCALHOST.",
])  # fmt: skip
def test_any_other_machine(host: str | None) -> None:
    assert not is_loopback(host)
