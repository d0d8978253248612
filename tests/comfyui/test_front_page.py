"""What the pack costs a page, and what it must not leave there."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import pytest
from comfy_browser import LOAD_GRAPH, PACK_URL, READY, FrontEnd, each_front_end
from comfy_graph import fill_example, load
from playwright.sync_api import expect

pytestmark = [pytest.mark.comfy, pytest.mark.browser, each_front_end]

SHARE = 0.02  # of all script of the page, ComfyUI's own included; 0.4 to 0.8 %
SAMPLING = 100  # us between two looks of the profiler
MAIN = f"{PACK_URL}js/onereward.js"
PLANNED = re.compile("after the first run|1 crop")  # by whether the server knows the mask
IDLE = ("(program)", "(idle)", "(garbage collector)")


def script_milliseconds(profile: dict[str, Any]) -> tuple[dict[str, float], float]:
    """Time spent in each of the pack's files and in what they call, by the profiler's samples; and
    in all script of the page.
    """
    nodes = {node["id"]: node for node in profile["nodes"]}
    parents = {child: node["id"] for node in profile["nodes"] for child in node.get("children", ())}
    spent: dict[str, float] = defaultdict(float)
    whole = 0.0
    for sample, delta in zip(profile["samples"], profile["timeDeltas"], strict=True):
        if nodes[sample]["callFrame"]["functionName"] in IDLE:
            continue
        whole += delta / 1000
        at: int | None = sample
        while at is not None:
            url = nodes[at]["callFrame"]["url"]
            if PACK_URL in url:
                spent[url.partition(PACK_URL)[2].partition("?")[0]] += delta / 1000
                break
            at = parents.get(at)
    return spent, whole


def test_the_pack_adds_little_script_time_to_the_page(front: FrontEnd) -> None:
    """A page that knows no file yet is loaded, and a graph with a panel opened. What is held to a
    limit is the pack's share: a busy machine makes all script slower.
    """
    loaded: list[str] = []
    browser = front.page.context.browser
    assert browser is not None
    page = browser.new_page()
    page.on("response", lambda reply: loaded.append(reply.url))
    session = page.context.new_cdp_session(page)
    session.send("Profiler.enable")
    session.send("Profiler.setSamplingInterval", {"interval": SAMPLING})
    session.send("Profiler.start")
    page.goto(front.url)
    page.wait_for_function(READY)
    page.evaluate(LOAD_GRAPH, load(fill_example()))
    expect(page.locator(".or-panel")).to_contain_text(PLANNED)
    spent, whole = script_milliseconds(session.send("Profiler.stop")["profile"])
    page.close()
    assert spent, "the profiler missed the pack"
    assert sum(MAIN in url for url in loaded) == 1, "the page came without the pack"
    assert sum(spent.values()) / whole < SHARE, (whole, dict(spent))
    assert front.complaints == []


def test_the_pack_keeps_nothing_in_the_browser_and_no_name_in_the_window(
    front: FrontEnd,
) -> None:
    front.load(load(fill_example()))
    kept = front.page.evaluate(
        """() => JSON.stringify([{...localStorage}, {...sessionStorage},
            document.cookie.split("; "), Object.keys(window)].map(each => Object.keys(each)
            .concat(Object.values(each)).filter(text => /^onereward/i.test(String(text)))))"""
    )
    assert kept == "[[],[],[],[]]"
    assert front.complaints == []
