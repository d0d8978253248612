"""The tests' own order: what is slow is there, and what shares a server stays together."""

from __future__ import annotations

import pytest
from conftest import ROOT, SLOW, share

TESTS = [path.relative_to(ROOT / "tests").as_posix() for path in ROOT.glob("tests/**/test_*.py")]
NEWEST = "newest front end"


@pytest.mark.parametrize("slow", [slow for slow in SLOW if slow != NEWEST])
def test_what_is_called_slow_is_there(slow: str) -> None:
    assert [test for test in TESTS if test.startswith(slow)]


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("nodes/canvas/test_masks.py::test_x[1]", "nodes/canvas/test_masks.py"),
        ("clients/test_server_js_client.py::test_x", "clients/"),
        ("comfyui/test_comfy_plan.py::test_x", "comfyui/test_comfy_"),
        ("comfyui/test_comfy_local.py::test_x", "comfyui/test_comfy_local.py"),
        ("comfyui/test_front_menu.py::test_x[1.32.9 canvas]", "comfyui/test_front_"),
        ("comfyui/test_front_menu.py::test_x[newest nodes 2.0]", NEWEST),
        ("test_install.py::test_x[newest]", "test_install.py"),
    ],
)
def test_tests_that_use_one_server_are_one_share(test: str, expected: str) -> None:
    assert share(test) == expected
