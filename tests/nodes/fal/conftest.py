"""What every test of the fal room shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from onereward_pack.nodes.fal import job_sends


@pytest.fixture(autouse=True)
def no_send_outlives_its_test() -> Iterator[None]:
    """Jobs that a test begins and does not end would have their leases renewed for ever."""
    yield
    for sends in job_sends._SENDS.values():
        for job in list(sends._live):
            sends.end(job)
    job_sends._SENDS.clear()
