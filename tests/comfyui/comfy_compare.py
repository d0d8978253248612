"""A box on the page that holds the before/after view, as a person sees and uses it."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from typing import Any

from comfy_browser import FrontEnd
from comfy_server import PACK_FOLDER
from PIL import Image, ImageDraw
from playwright.sync_api import Locator, Page

RED, BLUE, GREEN, GREY = (255, 0, 0), (0, 0, 255), (0, 128, 0), (128, 128, 128)
PATIENCE = 30.0  # seconds
Pair = dict[str, str]
Colour = tuple[int, int, int]

# Beside ComfyUI's own elements, in a box of a fixed size; `heard` are the keys that got past it.
STAND = """async ([script, style]) => {
    const { CompareView } = await import(script);
    const box = document.createElement("div");
    box.id = "stand";
    box.style.cssText = `position: fixed; left: 60px; top: 80px; z-index: 3000; ${style}`;
    document.body.append(box);
    window.view = new CompareView();
    box.append(window.view.element);
    window.heard = [];
    window.listen = event => window.heard.push(event.key);
    document.addEventListener("keydown", window.listen);
    const sheet = document.querySelector("link[href*='compare.css']");
    if (!sheet.sheet) await new Promise(resolve => { sheet.onload = resolve });
}"""
LEAVE = """() => {
    document.removeEventListener("keydown", window.listen);
    document.getElementById("stand").remove();
    document.querySelector("dialog.onereward[open]")?.close();
}"""
BOX = "width: 480px; height: 320px; padding: 0;"


def picture(colour: tuple[int, ...], width: int = 96, height: int = 64) -> Image.Image:
    mode = "RGBA" if len(colour) == 4 else "RGB"
    return Image.new(mode, (width, height), colour)


def url(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def ring(width: int = 96, height: int = 64) -> Image.Image:
    """A green frame a quarter into the picture, as an outline of a blend is."""
    drawn = picture((0, 0, 0, 0), width, height)
    box = (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
    ImageDraw.Draw(drawn).rectangle(box, outline=(*GREEN, 255), width=5)
    return drawn


def red_to_blue(width: int = 96, height: int = 64, label: str = "seed 1") -> Pair:
    before, after = picture(RED, width, height), picture(BLUE, width, height)
    return {"before": url(before), "after": url(after), "label": label}


class Stand:
    """The view in its box, as a person sees and uses it."""

    def __init__(self, front: FrontEnd) -> None:
        self.front = front
        self.page: Page = front.page
        self.pane = self.page.locator("#stand .orc-pane")
        self.slider = self.page.locator("#stand").get_by_role("slider")
        self.dialog = self.page.get_by_role("dialog", name="Before and after, full size")

    def show(self, *pairs: Pair, caption: str = "") -> None:
        self.page.evaluate(
            "([pairs, caption]) => view.show(pairs, { caption })", [list(pairs), caption]
        )

    def preview(self, step: str | None) -> None:
        self.page.evaluate("url => view.preview(url)", step)

    def button(self, name: str) -> Locator:
        return self.page.locator("#stand").get_by_role("button", name=name)

    def drag(self, start: float, end: float, pane: Locator | None = None, y: float = 0.75) -> None:
        """Press at a fraction of the pane's width, move, and let go."""
        box = (pane or self.pane).bounding_box()
        assert box is not None
        mouse, height = self.page.mouse, box["y"] + box["height"] * y
        mouse.move(box["x"] + box["width"] * start, height)
        mouse.down()
        mouse.move(box["x"] + box["width"] * (start + end) / 2, height)
        mouse.move(box["x"] + box["width"] * end, height)
        mouse.up()
        mouse.move(5, 5)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def divider(self) -> int:
        return int(self.slider.get_attribute("aria-valuenow") or -1)

    def colours(self, *places: float, of: Locator | None = None, y: float = 0.8) -> list[Colour]:
        """The pixels at these fractions of the pane's width."""
        seen = Image.open(io.BytesIO((of or self.pane).screenshot(animations="disabled")))
        row = int(seen.height * y)
        pixels: Any = seen.convert("RGB").load()
        return [pixels[int(seen.width * place), row] for place in places]

    def sees(self, expected: list[Colour], *places: float, **where: Any) -> None:
        """What `colours` gives, as soon as the pictures are loaded."""
        end = time.monotonic() + PATIENCE
        while (seen := self.colours(*places, **where)) != expected and time.monotonic() < end:
            pass
        assert seen == expected


def standing(front: FrontEnd, style: str) -> Iterator[Stand]:
    script = f"/extensions/{PACK_FOLDER}/js/compare/view.mjs"
    front.page.evaluate(STAND, [script, style])
    yield Stand(front)
    front.page.evaluate(LEAVE)
    assert front.complaints == []
