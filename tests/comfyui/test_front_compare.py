"""The before/after view on the page, by real mouse and keyboard, judged by its pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import pytest
from comfy_browser import FrontEnd, each_front_end
from comfy_compare import (
    BLUE,
    BOX,
    GREEN,
    GREY,
    RED,
    Pair,
    Stand,
    picture,
    red_to_blue,
    ring,
    standing,
    url,
)
from PIL import Image
from playwright.sync_api import Locator, expect

pytestmark = [pytest.mark.comfy, pytest.mark.browser, each_front_end]

THEME = "id => app.extensionManager.setting.set('Comfy.ColorPalette', id)"
FINE = (2000, 1300)  # more than the window holds


@pytest.fixture
def stand(front: FrontEnd) -> Iterator[Stand]:
    front.page.mouse.move(5, 5)
    yield from standing(front, BOX)


def test_the_source_is_left_of_the_divider_and_the_result_right_of_it(stand: Stand) -> None:
    stand.show(red_to_blue())
    stand.sees([RED, RED, BLUE, BLUE], 0.1, 0.45, 0.55, 0.9)
    stand.drag(0.1, 0.25)
    assert stand.divider() == 25
    stand.sees([RED, RED, BLUE, BLUE], 0.1, 0.2, 0.3, 0.9)
    assert stand.page.evaluate("document.activeElement.getAttribute('role')") == "slider"


@pytest.mark.parametrize("style", ["transform: scale(0.6)", "zoom: 1.5"])
def test_the_divider_follows_the_pointer_in_a_view_that_is_scaled(
    front: FrontEnd, style: str
) -> None:
    for stand in standing(front, f"{BOX} {style}; transform-origin: 0 0"):
        stand.show(red_to_blue())
        stand.drag(0.5, 0.8)
        assert stand.divider() == 80
        stand.sees([RED, RED, BLUE, BLUE], 0.1, 0.76, 0.84, 0.95)


@pytest.mark.parametrize("size", [(40, 160), (300, 60)])
def test_a_picture_of_another_shape_is_shown_whole(stand: Stand, size: tuple[int, int]) -> None:
    stand.show(red_to_blue(*size))
    box = stand.pane.bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(size[0] / size[1], rel=0.02)
    assert box["width"] == pytest.approx(480, abs=1) or box["height"] > 280
    stand.drag(0.5, 0.3)
    assert stand.divider() == 30
    stand.sees([RED, BLUE], 0.1, 0.9)


def test_the_divider_moves_by_the_keyboard(stand: Stand) -> None:
    stand.show(red_to_blue())
    stand.slider.focus()
    places = []
    for key in ("ArrowLeft", "ArrowRight", "Shift+ArrowRight", "End", "Home"):
        stand.press(key)
        places.append(stand.divider())
    assert places == [48, 50, 60, 100, 0]
    assert stand.slider.get_attribute("aria-valuetext") == "0 % before, 100 % after"
    stand.sees([BLUE, BLUE], 0.02, 0.9)


def test_a_label_fades_when_the_divider_passes_it(stand: Stand) -> None:
    stand.show(red_to_blue())

    def readable() -> list[str]:
        labels = stand.pane.locator(".orc-label:not(.orc-passed)")
        return [label for label in labels.all_inner_texts() if label]

    assert readable() == ["before", "after"]
    stand.slider.focus()
    stand.press("Home")
    assert readable() == ["after"]
    stand.press("End")
    assert readable() == ["before"]


def test_keys_that_the_view_uses_do_not_reach_comfyui(stand: Stand) -> None:
    pair = red_to_blue() | {"outline": url(ring())}
    stand.show(pair, pair)
    stand.slider.focus()
    stand.press("ArrowLeft", "End", "PageDown", "[", "]", "o", "b", "f")
    stand.press("1", "+", "0", "Delete", "r", "Control+m", "ArrowLeft", "Escape")
    stand.dialog.wait_for(state="detached")
    expect(stand.slider).to_be_focused()  # the dialog gives it back when it is gone
    assert stand.page.evaluate("heard") == []
    stand.press("F9")  # all others are ComfyUI's
    stand.page.wait_for_function("heard.length")
    assert stand.page.evaluate("heard") == ["F9"]


def test_the_outline_is_shown_on_demand(stand: Stand) -> None:
    stand.show(red_to_blue() | {"outline": url(ring())})
    edge = 0.275
    stand.sees([RED], edge, y=0.5)
    stand.pane.hover(position={"x": 20, "y": 200})
    stand.button("Outline").click()
    assert stand.button("Outline").get_attribute("aria-pressed") == "true"
    stand.sees([GREEN], edge, y=0.5)
    stand.sees([RED, BLUE], 0.1, 0.9)
    stand.slider.focus()
    stand.press("o")
    stand.sees([RED], edge, y=0.5)
    stand.show(red_to_blue())
    assert not stand.button("Outline").is_visible()


def test_a_batch_is_paged_through_and_keeps_its_place(stand: Stand) -> None:
    colours = [BLUE, GREEN, GREY]
    batch = [
        red_to_blue(label=f"seed {n}") | {"after": url(picture(colour))}
        for n, colour in enumerate(colours)
    ]
    stand.show(*batch, caption="96 x 64")
    count = stand.page.locator("#stand .orc-count")
    assert count.inner_text() == "1 of 3"
    stand.button("Next picture").click()
    assert count.inner_text() == "2 of 3"
    assert stand.page.locator("#stand").get_by_text("seed 1 \u00b7 96 x 64").is_visible()
    stand.sees([GREEN], 0.9)
    stand.drag(0.5, 0.7)
    stand.show(*batch)
    assert (count.inner_text(), stand.divider()) == ("2 of 3", 70)
    stand.press("PageDown", "PageDown", "[")
    assert count.inner_text() == "3 of 3"
    stand.sees([RED, GREY], 0.1, 0.9)
    stand.show(batch[0])
    assert not count.is_visible()
    assert (stand.page.evaluate("view.index"), stand.divider()) == (0, 50)


def test_the_source_shows_as_long_as_the_button_or_key_is_held(stand: Stand) -> None:
    stand.show(red_to_blue())
    stand.slider.focus()
    stand.page.keyboard.down("b")
    stand.sees([RED, RED], 0.1, 0.9)
    stand.page.keyboard.up("b")
    stand.sees([RED, BLUE], 0.1, 0.9)
    stand.button("Hold to see the source").hover()
    stand.page.mouse.down()
    stand.sees([RED, RED], 0.1, 0.6)
    stand.page.mouse.up()
    stand.sees([RED, BLUE], 0.1, 0.6)


def test_a_transparent_source_lies_on_a_checkerboard(stand: Stand) -> None:
    extended = picture((0, 0, 0, 0))
    extended.paste(picture(RED, 32, 64), (0, 0))
    stand.show(red_to_blue() | {"before": url(extended)})
    stand.slider.focus()
    stand.press("End")
    red, *board = stand.colours(0.1, *(0.5 + step * 0.01 for step in range(20)))
    assert red == RED
    assert len(set(board)) >= 2
    assert all(max(colour) - min(colour) < 8 for colour in board)


def test_a_running_edit_shows_its_steps_as_the_result(stand: Stand) -> None:
    stand.show(red_to_blue())
    place = stand.pane.bounding_box()
    stand.preview(url(picture(GREEN, 48, 32)))
    stand.sees([RED, GREEN], 0.1, 0.9)
    assert stand.pane.bounding_box() == place
    assert stand.pane.get_by_text("step preview").is_visible()
    stand.preview(url(picture(GREY, 32, 32)))  # a crop: there is nothing to hold it against
    stand.sees([GREY, GREY], 0.1, 0.9)
    assert not stand.slider.is_visible()
    stand.preview(None)
    stand.sees([RED, BLUE], 0.1, 0.9)
    assert stand.pane.get_by_text("after", exact=True).is_visible()
    stand.show()
    stand.preview(url(picture(GREEN)))
    stand.sees([GREEN, GREEN], 0.1, 0.9)


def test_a_picture_that_is_gone_is_said_in_words(stand: Stand) -> None:
    gone = "/view?filename=onereward_gone.png&subfolder=&type=temp"
    stand.show(red_to_blue() | {"after": gone})
    stand.page.get_by_text("The picture is no longer there. Run the node again.").wait_for()
    assert not stand.pane.is_visible()
    stand.show(red_to_blue() | {"before": gone})
    stand.page.get_by_text("The source is no longer there. Run the node again.").wait_for()
    stand.sees([BLUE, BLUE], 0.1, 0.9, y=0.5)
    stand.front.screenshot("compare, source gone")


def fine_pair() -> Pair:
    """Pictures whose neighbouring pixels differ, too large for the window."""
    before, after = picture(RED, *FINE), Image.effect_noise(FINE, 90)
    return {"before": url(before), "after": url(after), "label": "seed 7"}


def test_the_full_size_opens_zooms_and_gives_the_focus_back(stand: Stand) -> None:
    stand.show(fine_pair())
    shown = stand.pane.bounding_box()
    assert shown is not None
    stand.pane.dblclick(position={"x": shown["width"] * 0.75, "y": 250})
    pane, percent = stand.dialog.locator(".orc-pane"), stand.dialog.locator(".orc-percent")
    pane.wait_for()
    box = pane.bounding_box()
    assert box is not None and box["height"] > 900
    fitted = percent.inner_text()
    slider = stand.dialog.get_by_role("slider")
    expect(slider).to_be_focused()
    assert slider.get_attribute("aria-valuenow") == "75"  # where the double-click put it
    stand.drag(0.75, 0.5, pane)
    assert slider.get_attribute("aria-valuenow") == "50"
    stand.sees([RED], 0.2, of=pane)
    stand.press("1")
    assert percent.inner_text() == "100 %"
    stand.press("+", "+")
    assert percent.inner_text() == "200 %"
    assert "orc-pixels" in (pane.get_attribute("class") or "")
    stand.press("0")
    assert percent.inner_text() == fitted
    stand.press("Escape")
    stand.dialog.wait_for(state="detached")
    assert stand.page.evaluate("view.element.contains(document.activeElement)")
    expect(stand.slider).to_have_attribute("aria-valuenow", "50")


def test_the_full_size_zooms_around_the_pointer_and_is_pushed_by_a_drag(stand: Stand) -> None:
    pair = fine_pair()
    noise = Image.open(io.BytesIO(base64.b64decode(pair["after"].split(",")[1])))
    stand.show(pair)
    stand.slider.focus()
    stand.press("Home", "f")
    view = stand.dialog.locator(".orc-viewport")
    view.locator(".orc-pane").wait_for()
    stand.page.mouse.move(1100, 600)
    stand.press("1")
    x, y = place_of(noise, window(view), (1100, 600))
    assert (x, y) == pytest.approx((1100 + 200, 600 * FINE[1] / 955), abs=240)
    stand.page.mouse.wheel(0, -240)
    stand.press("1")
    assert place_of(noise, window(view), (1100, 600)) == (x, y)
    for button in ("left", "middle"):
        stand.page.mouse.down(button=button)
        stand.page.mouse.move(1060, 570)
        stand.page.mouse.up(button=button)
        stand.page.mouse.move(1100, 600)
    assert place_of(noise, window(view), (1100, 600)) == (x + 80, y + 60)
    assert stand.dialog.get_by_role("slider").get_attribute("aria-valuenow") == "0"
    stand.press("Escape")


def window(view: Locator) -> Image.Image:
    return Image.open(io.BytesIO(view.screenshot())).convert("L")


def place_of(noise: Image.Image, seen: Image.Image, at: tuple[int, int]) -> tuple[int, int]:
    """Which pixel of the noise lies at a place of the window, at 100 %: found by its neighbours."""
    size = 24
    part = seen.crop((*at, at[0] + size, at[1] + size)).tobytes()
    y, x = divmod(noise.tobytes().index(part[:size]), noise.width)
    assert noise.crop((x, y, x + size, y + size)).tobytes() == part
    return x, y


def test_the_full_size_pages_through_a_batch_and_shows_the_outline(stand: Stand) -> None:
    pair = red_to_blue() | {"outline": url(ring())}
    stand.show(pair, pair | {"after": url(picture(GREY))}, caption="96 x 64")
    stand.slider.focus()
    stand.press("o", "f")
    pane = stand.dialog.locator(".orc-pane")
    pane.wait_for()
    stand.dialog.get_by_role("button", name="Next picture").click()
    stand.press("ArrowRight", "ArrowRight")
    stand.sees([RED, GREY], 0.1, 0.9, of=pane)
    stand.sees([GREEN], 0.275, of=pane, y=0.5)
    stand.front.screenshot("compare, full size")
    stand.press("o")
    stand.sees([RED], 0.275, of=pane, y=0.5)
    stand.dialog.get_by_role("button", name="Close").click()
    stand.dialog.wait_for(state="detached")
    expect(stand.page.locator("#stand .orc-count")).to_have_text("2 of 2")
    assert stand.divider() == 54


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_view_is_readable_in_both_themes_and_at_150_percent(
    front: FrontEnd, theme: str
) -> None:
    front.page.evaluate(THEME, theme)
    for stand in standing(front, f"{BOX} zoom: 1.5; background: var(--comfy-menu-bg)"):
        pair = red_to_blue() | {"outline": url(ring())}
        stand.show(pair, pair, caption="96 x 64")
        stand.slider.focus()
        stand.press("ArrowLeft")
        for name in ("Previous picture", "Next picture", "Outline", "Hold", "Full size"):
            size = stand.button(name).bounding_box()
            assert size is not None and size["width"] >= 36 and size["height"] >= 36
        stand.front.screenshot(f"compare, {theme}")
    front.page.evaluate(THEME, "dark")
