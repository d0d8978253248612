"""Settings > OneReward in ComfyUI's real front ends: what a person reads, sets and gets told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import requests
from comfy_browser import FrontEnd, each_front_end
from comfy_scene import error_of, fill_on_fal, put_scene, succeeded
from comfy_server import ComfyUI
from fakes.fal_server import FalServer
from playwright.sync_api import Locator, expect

pytestmark = [pytest.mark.comfy, pytest.mark.browser, each_front_end]

PREFERENCES = "preferences.json"
SEEDS = count(5000)  # ComfyUI runs the same graph only once
PALETTE = "name => app.extensionManager.setting.set('Comfy.ColorPalette', name)"


@pytest.fixture
def server(front: FrontEnd) -> Iterator[ComfyUI]:
    """The ComfyUI that the tab shows, with nothing set in it before and after."""
    put_scene(front.server.folder)
    pack_file(front.server, PREFERENCES).unlink(missing_ok=True)
    yield front.server
    pack_file(front.server, PREFERENCES).unlink(missing_ok=True)


@pytest.fixture
def page(front: FrontEnd, server: ComfyUI) -> Iterator[FrontEnd]:
    """The tab, with the page of settings open in it."""
    open_settings(front)
    yield front
    close_settings(front)
    assert front.complaints == []


def open_settings(front: FrontEnd) -> None:
    front.page.keyboard.press("Control+Comma")
    front.page.get_by_role("dialog").get_by_text("OneReward", exact=True).click()
    expect(part(front, "Backends").get_by_role("listitem").first).to_be_visible()


def close_settings(front: FrontEnd) -> None:
    front.page.keyboard.press("Escape")
    expect(front.page.get_by_role("dialog")).to_have_count(0)


def part(front: FrontEnd, name: str) -> Locator:
    """A part of the page, by its heading."""
    return front.page.get_by_role("region", name=name, exact=True)


def pack_file(server: ComfyUI, name: str) -> Any:
    return server.folder / "user" / "__onereward" / name


def stored(server: ComfyUI) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pack_file(server, PREFERENCES).read_text())
    return found


def test_the_page_says_what_can_run_and_tests_a_server_only_when_asked(
    page: FrontEnd, fal: FalServer
) -> None:
    lines = part(page, "Backends").get_by_role("listitem")
    expect(lines).to_have_count(3)
    expect(lines.nth(0)).to_contain_text("There is no OneReward model in ComfyUI's models/")
    expect(lines.nth(0).get_by_role("img", name="not there")).to_be_visible()
    expect(lines.nth(1)).to_contain_text("There is a key, from FAL_KEY.")
    expect(lines.nth(2)).to_contain_text("Preview model")
    expect(part(page, "Backends")).to_contain_text("using fal, because a key is set")
    assert fal.requests == [], "opening the page must not ask anybody"
    lines.nth(1).get_by_role("button", name="Test fal").click()
    expect(lines.nth(1)).to_contain_text("fal knows the key. Price: $0.035 per megapixel.")
    assert fal.requests != [] and fal.jobs == {}
    page.screenshot("settings, backends")


def test_every_part_fits_beside_the_list_of_categories_also_in_a_small_window(
    page: FrontEnd,
) -> None:
    for width, height in ((1067, 667), (1600, 1000)):  # the first is what 150 % zoom leaves
        page.page.set_viewport_size({"width": width, "height": height})
        for name in ("Backends", "fal key", "Spend ceilings", "Default canvas", "Jobs"):
            box = part(page, name).bounding_box()
            heading = page.page.get_by_role("heading", name=name, exact=True).bounding_box()
            assert box and heading and box["width"] > 0.3 * width, (name, box)
            assert box["x"] + box["width"] <= width and box["x"] < heading["x"] + 40
        page.screenshot(f"settings, {width} wide")


def test_the_key_form_says_that_the_environment_wins_and_takes_none(page: FrontEnd) -> None:
    key = part(page, "fal key")
    expect(key).to_contain_text("A key is set, from FAL_KEY.")
    expect(key).to_contain_text("The key is in FAL_KEY, which is used before the key file.")
    for control in (key.get_by_label("fal key", exact=True), *key.get_by_role("button").all()[:2]):
        expect(control).to_be_disabled()
    field = key.locator("input")
    assert (field.get_attribute("type"), field.get_attribute("autocomplete")) == ("password", "off")
    key.get_by_role("button", name="Test the key").click()
    expect(key).to_contain_text("fal knows the key.")


def test_the_order_is_changed_by_mouse_and_keyboard_and_is_what_runs(
    page: FrontEnd, server: ComfyUI
) -> None:
    order = part(page, "When no backend is connected")
    names = order.get_by_role("listitem").locator("strong")
    expect(names).to_have_text(["Model on this machine", "fal", "Preview model"])
    order.get_by_role("button", name="Move Preview model up").click()
    expect(names).to_have_text(["Model on this machine", "Preview model", "fal"])
    expect(order.get_by_role("listitem").nth(2)).to_contain_text("never reached")
    expect(part(page, "Backends")).to_contain_text("using the small preview model")
    assert stored(server)["auto_order"] == ["local", "preview", "fal"]
    assert server.get("/onereward/status")["backend"] == "preview"
    moved = order.get_by_role("button", name="Move Preview model up")
    expect(moved).to_be_focused()
    page.page.keyboard.press("Enter")
    expect(names).to_have_text(["Preview model", "Model on this machine", "fal"])
    expect(order.get_by_role("button", name="Move Preview model down")).to_be_focused()
    page.page.keyboard.press("ArrowDown")
    expect(names).to_have_text(["Model on this machine", "Preview model", "fal"])
    expect(order.get_by_role("status")).to_have_text("Saved.")


def test_a_ceiling_holds_for_every_workflow_and_a_bad_one_is_refused_in_place(
    page: FrontEnd, server: ComfyUI, fal: FalServer
) -> None:
    ceilings = part(page, "Spend ceilings")
    run = ceilings.get_by_label("Ceiling for one run")
    run.fill("20000")
    run.press("Enter")
    expect(ceilings).to_contain_text("run_ceiling is 20000. Use 0 to 10000 US dollars")
    assert not pack_file(server, PREFERENCES).exists()
    run.fill("0.001")
    run.press("Enter")
    expect(ceilings).to_contain_text("Saved: Ceiling for one run is $0.001.")
    said = error_of(server.run(fill_on_fal(seed=501, run_cap=0.0)))
    assert '"Ceiling for one run" in Settings > OneReward' in said and fal.calls("submit") == []
    run.fill("0")
    run.press("Tab")
    expect(ceilings).to_contain_text("Saved: no ceiling for one run.")
    expect(ceilings.get_by_label("Ceiling for a session")).to_be_focused()
    assert stored(server)["run_ceiling"] == 0


def test_a_default_canvas_is_set_field_by_field_and_taken_back(
    page: FrontEnd, server: ComfyUI
) -> None:
    canvas = part(page, "Default canvas")
    own = canvas.get_by_label("Each task's own defaults")
    expect(own).to_be_checked()
    expect(canvas.get_by_label("Grow")).to_be_hidden()
    own.uncheck()
    expect(canvas.get_by_role("status")).to_have_text("Saved.")
    canvas.get_by_label("Grow").fill("-12")
    canvas.get_by_label("Regions").select_option("one crop")
    canvas.get_by_label("Clean mask").uncheck()
    canvas.get_by_label("Target").fill("huge")
    canvas.get_by_label("Target").press("Tab")
    expect(canvas.get_by_role("status")).to_contain_text("huge")
    assert "huge" not in json.dumps(stored(server))
    canvas.get_by_label("Target").fill("1024")
    canvas.get_by_label("Target").press("Tab")
    expect(canvas.get_by_role("status")).to_have_text("Saved.")
    page.screenshot("settings, canvas")
    assert stored(server)["canvas"] == {
        "grow": -12, "blend": 16, "context": 1.5, "target": "1024", "regions": "one crop",
        "seam": 1.0, "clean": False, "invert": False, "alpha": "keep",
    }  # fmt: skip
    own.check()
    expect(canvas.get_by_label("Grow")).to_be_hidden()
    expect(canvas.get_by_role("status")).to_contain_text("its own defaults again")
    assert stored(server)["canvas"] is None


def test_a_job_is_listed_collected_opened_and_its_picture_cleared_after_one_question(
    page: FrontEnd, server: ComfyUI, fal: FalServer
) -> None:
    seed = next(SEEDS)
    succeeded(server, fill_on_fal(seed))
    [request_id] = fal.jobs
    jobs = part(page, "Jobs")
    jobs.get_by_role("button", name="Read the jobs again").click()
    row = jobs.get_by_role("row", name=f"seed {seed}")
    expect(row).to_contain_text("done")
    expect(row).to_contain_text("$0.009")
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    row.get_by_role("button", name="Copy the request id").click()
    expect(jobs).to_contain_text("The request id is copied.")
    assert page.page.evaluate("() => navigator.clipboard.readText()") == request_id
    row.get_by_role("button", name="Save the picture").click()
    picture = row.get_by_role("link", name="Open picture")
    reply = requests.get(server.url + (picture.get_attribute("href") or ""), timeout=10)
    assert reply.ok and reply.content.startswith(b"\x89PNG")
    assert list((server.folder / "output" / "onereward").glob("collected_*.png"))
    page.page.evaluate(PALETTE, "light")
    page.screenshot("settings, jobs, light")
    page.page.evaluate(PALETTE, "dark")
    jobs.get_by_role("button", name="Clear the kept pictures").click()
    expect(jobs.get_by_role("alert")).to_contain_text("sent and paid for again")
    expect(jobs.get_by_role("button", name="Keep the pictures")).to_be_focused()
    page.page.keyboard.press("Enter")
    assert server.get("/onereward/journal")["totals"]["pictures"] > 0
    jobs.get_by_role("button", name="Clear the kept pictures").click()
    jobs.get_by_role("button", name="Drop the kept pictures").click()
    expect(jobs).to_contain_text("are free again. What was paid stays in the list.")
    expect(row).to_contain_text("no picture is kept any more")
    assert server.get("/onereward/journal")["totals"]["pictures"] == 0
    assert fal.paid == 1


def test_from_another_machine_the_page_shows_all_and_the_forms_say_why_they_are_off(
    page: FrontEnd,
) -> None:
    def elsewhere(route: Any) -> None:
        reply = route.fetch()
        route.fulfill(response=reply, json={**reply.json(), "here": False})

    page.page.route("**/onereward/status", elsewhere)
    close_settings(page)
    open_settings(page)
    for name in ("fal key", "When no backend is connected", "Spend ceilings", "Default canvas"):
        expect(part(page, name)).to_contain_text("on the machine that ComfyUI runs on")
    for field in ("Ceiling for one run", "Each task's own defaults", "Move fal up"):
        expect(page.page.get_by_label(field).first).to_be_disabled()
    expect(part(page, "Backends")).to_contain_text("Preview model")
    page.page.unroute("**/onereward/status")
