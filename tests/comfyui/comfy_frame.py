"""The frame of an extension on the page, and how it is dragged."""

from __future__ import annotations

import re

from comfy_browser import FrontEnd
from playwright.sync_api import FloatRect, Locator


def box(locator: Locator) -> FloatRect:
    found = locator.bounding_box()
    assert found is not None
    return found


def middle(rect: FloatRect) -> tuple[float, float]:
    return rect["x"] + rect["width"] / 2, rect["y"] + rect["height"] / 2


def drag(front: FrontEnd, handle: Locator, right: float, down: float, release: bool = True) -> None:
    x, y = middle(box(handle))
    front.page.mouse.move(x, y)
    front.page.mouse.down()
    front.page.mouse.move(x + right / 2, y + down / 2)
    front.page.mouse.move(x + right, y + down)
    if release:
        front.page.mouse.up()


def handle(view: Locator, name: str) -> Locator:
    return view.get_by_label(re.compile(f"^Extend {name}($|:)"))
