"""Drives ComfyUI's real front end in Debian's Chromium, as an artist would."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from comfy_graph import Graph
from comfy_server import PACK_FOLDER, RUN_LIMIT, ComfyUI
from playwright.sync_api import ConsoleMessage, Page, Response, expect, sync_playwright

# The front ends that the pack is for, in each of their two renderers.
FRONTS = [
    ("1.32.9", "canvas"),
    ("newest", "nodes 2.0"),
    ("1.32.9", "nodes 2.0"),
    ("newest", "canvas"),
]
# For what has nothing to do with how nodes are drawn: each front end and each renderer once.
each_front_end = pytest.mark.parametrize(
    "front", FRONTS[:2], indirect=True, ids=" ".join, scope="module"
)
expect.set_options(timeout=60_000)  # ms; the machine may be busy
BANNER_OFF = "localStorage.setItem('vueNodesBannerDismissed', 'true')"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
NO_SCRIPT = "/queue"  # an answer of ComfyUI's, shown by the browser itself
FORGET = "() => { localStorage.clear(); sessionStorage.clear() }"
PACK_URL = f"/extensions/{PACK_FOLDER}/"

WATCH_RUNS = """() => {
    window.finishedRuns = [];
    for (const name of ["execution_success", "execution_error", "execution_interrupted"])
        app.api.addEventListener(name, event => window.finishedRuns.push([name, event.detail]));
}"""
LOAD_GRAPH = "graph => app.loadGraphData(graph)"
NODES = """() => app.graph.nodes.map(node => ({
    id: node.id, type: node.type, red: Boolean(node.has_errors),
    known: node.type in LiteGraph.registered_node_types, size: [...node.size],
    pos: [...node.pos], title: node.title,
}))"""
SAVE = "() => JSON.parse(JSON.stringify(app.graph.serialize()))"
PROMPT = "async () => (await app.graphToPrompt()).output"
SET_WIDGET = """([type, name, value]) => {
    const node = app.graph.nodes.find(node => node.type === type);
    node.widgets.find(widget => widget.name === name).value = value;
}"""
BADGES = """type => app.graph.nodes.find(node => node.type === type).badges
    .map(badge => (typeof badge === "function" ? badge() : badge).text)"""
SET_WIDGETS = """([type, values]) => {
    const node = app.graph.nodes.find(node => node.type === type);
    for (const widget of node.widgets) widget.value = values[widget.name];
}"""
CUT_OFF = """() => app.graph.nodes.filter(
    node => [0, 1].some(side => node.size[side] < node.computeSize()[side])
).map(node => node.title)"""
READY = "window.app?.extensionManager && window.app.graph?.nodes.length"
# Shows the graph at this scale and place. ComfyUI moves to a graph that was opened, some frames
# later: what it does is undone until the view has kept its place for a while.
VIEW = """([scale, left, top]) => new Promise(done => {
    const { canvas } = app, { ds } = canvas;
    let kept = 0;
    const frame = () => {
        kept += 1;
        if (ds.scale !== scale || ds.offset[0] !== left || ds.offset[1] !== top) {
            ds.scale = scale; ds.offset = [left, top]; canvas.setDirty(true, true);
            kept = 0;
        }
        if (kept < 30) requestAnimationFrame(frame); else done();
    };
    frame();
})"""
# Until the view has not moved for some frames, which were drawn.
DRAWN = """() => new Promise(done => {
    let before = "", kept = 0;
    const frame = () => {
        const { scale, offset } = app.canvas.ds, now = [scale, ...offset].join();
        kept = now === before ? kept + 1 : 0;
        before = now;
        if (kept < 6) requestAnimationFrame(frame); else done();
    };
    frame();
})"""
FIT_VIEW = "() => app.extensionManager.command.execute('Comfy.Canvas.FitView')"
SHOWN = "id => { const imgs = app.graph.getNodeById(id).imgs; return imgs?.[0]?.naturalWidth > 0 }"
NODES_2 = "on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"
PIXELS = """id => {
    const img = app.graph.getNodeById(id).imgs[0];
    const canvas = document.createElement("canvas");
    canvas.width = img.naturalWidth; canvas.height = img.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(img, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set();
    for (let i = 0; i < data.length; i += 4)
        colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    return {width: canvas.width, height: canvas.height, colours: colours.size};
}"""


def find_browser() -> str | None:
    """Where Chromium or Chrome is, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class FrontEnd:
    """One open tab of ComfyUI.

    `complaints` collects what went wrong on the page and is our concern: uncaught exceptions, and
    console errors and failed requests for the pack's own files.
    """

    def __init__(self, page: Page, server: ComfyUI, pictures: Path) -> None:
        self.page = page
        self.server = server
        self.url = server.url
        self.label = ""
        self.complaints: list[str] = []
        self._pictures = pictures
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error.stack}"))
        page.on("console", self._hear)
        page.on("response", self._look)
        page.add_init_script(BANNER_OFF)

    @contextmanager
    def open(self, label: str) -> Iterator[FrontEnd]:
        """The page opened anew, with nothing of an earlier one; it is left afterwards."""
        self.label = label
        self.complaints.clear()
        self.page.goto(self.url + NO_SCRIPT)
        self.page.evaluate(FORGET)
        self.page.goto(self.url)
        self.page.wait_for_function(READY)
        self.page.evaluate(WATCH_RUNS)
        yield self
        self.page.goto(self.url + NO_SCRIPT)

    def load(self, graph: Graph) -> None:
        """Open a workflow, as dropping its file on the page does."""
        self.page.evaluate(LOAD_GRAPH, graph)
        self.fit_view()

    def open_template(self, category: str, title: str) -> int:
        """Open a workflow through the Templates dialog; the width of the thumbnail it showed."""
        self.page.get_by_role("button", name="Templates").click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_text(re.compile(f"^{re.escape(category)}$", re.IGNORECASE)).first.click()
        card = dialog.get_by_test_id(f"template-workflow-{title}")
        card.scroll_into_view_if_needed()  # it loads its picture only then
        picture = card.locator("img").first
        picture.wait_for()
        self.page.wait_for_function("img => img.complete", arg=picture.element_handle())
        width = int(picture.evaluate("img => img.naturalWidth"))
        self.screenshot(f"templates, {title}")
        card.click()
        card.wait_for(state="hidden")  # another dialog may follow, on missing models
        return width

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes of the open graph: id, type, title, pos, size, red, known."""
        nodes: list[dict[str, Any]] = self.page.evaluate(NODES)
        return nodes

    def cut_off(self) -> list[str]:
        """The titles of the nodes that are too small for what they hold."""
        titles: list[str] = self.page.evaluate(CUT_OFF)
        return titles

    def set_widgets(self, node_type: str, values: Graph) -> None:
        """Give every widget of the one node of that type its value."""
        self.page.evaluate(SET_WIDGETS, [node_type, values])

    def set_widget(self, node_type: str, name: str, value: Any) -> None:
        """Give one widget of the one node of that type a value."""
        self.page.evaluate(SET_WIDGET, [node_type, name, value])

    def badges(self, node_type: str) -> list[str]:
        """The texts above the one node of that type."""
        texts: list[str] = self.page.evaluate(BADGES, node_type)
        return texts

    def close_dialogs(self) -> None:
        """Close what lies over the page, such as the report of an error."""
        dialogs = self.page.get_by_role("dialog")
        while dialogs.count():
            self.page.keyboard.press("Escape")
            dialogs.first.wait_for(state="hidden")

    def save(self) -> Graph:
        """The open graph, as Save writes it."""
        graph: Graph = self.page.evaluate(SAVE)
        return graph

    def prompt(self) -> Graph:
        """The open graph, as Run posts it."""
        prompt: Graph = self.page.evaluate(PROMPT)
        return prompt

    def fit_view(self) -> None:
        """Show the whole graph."""
        self.page.evaluate(FIT_VIEW)

    def view(self, scale: float, left: float, top: float) -> None:
        """Show the graph at that scale, its origin so far into the page, and keep it there."""
        self.page.evaluate(VIEW, [scale, left, top])

    def drawn(self) -> None:
        """Wait until the view of the graph stands still, and is drawn."""
        self.page.evaluate(DRAWN)

    def run(self) -> tuple[str, dict[str, Any]]:
        """Press Run; how the run ended, and what the server said of it."""
        before = self.page.evaluate("() => window.finishedRuns.length")
        self.page.get_by_test_id("queue-button").click()
        self.page.wait_for_function(
            "before => window.finishedRuns.length > before", arg=before, timeout=RUN_LIMIT * 1000
        )
        name, detail = self.page.evaluate("() => window.finishedRuns.at(-1)")
        return name, detail

    def shown(self, node_id: int) -> dict[str, int]:
        """Width, height and number of colours of the picture that a node shows on the graph."""
        self.page.wait_for_function(SHOWN, arg=node_id)
        pixels: dict[str, int] = self.page.evaluate(PIXELS, node_id)
        return pixels

    @contextmanager
    def nodes_2(self) -> Iterator[None]:
        """The newer renderer, whose nodes are page elements; what is open is shown in it."""
        self.page.evaluate(NODES_2, True)
        try:
            yield
        finally:
            self.page.evaluate(NODES_2, False)

    def shown_in_nodes_2(self, node_id: int) -> int:
        """The width of the picture that a node of the newer renderer shows."""
        picture = self.page.locator(f"[data-node-id='{node_id}'] img").first
        picture.wait_for()
        self.page.wait_for_function("img => img.complete", arg=picture.element_handle())
        return int(picture.evaluate("img => img.naturalWidth"))

    def screenshot(self, name: str) -> Path:
        """The page as it looks now, in the folder for screenshots."""
        path = self._pictures / f"{name}{f', {self.label}' if self.label else ''}.png"
        self.drawn()
        self.page.screenshot(path=path)
        return path

    def _hear(self, message: ConsoleMessage) -> None:
        ours = PACK_URL in message.text or PACK_URL in str(message.location.get("url"))
        if message.type == "error" and ours:
            self.complaints.append(f"console: {message.text}")

    def _look(self, response: Response) -> None:
        if PACK_URL in response.url and response.status >= 400:  # 304: it has the file still
            self.complaints.append(f"{response.status}: {response.url}")


class Browser:
    """One Chromium, with a tab for every server. What a page fetched and compiled, the tab's next
    page has still, which takes a third of the time.

    Args:
        executable: where Chromium or Chrome is.
        pictures: where screenshots go, unless ONEREWARD_SCREENSHOTS names another folder.
    """

    def __init__(self, executable: str, pictures: Path) -> None:
        self._pictures = Path(os.environ.get("ONEREWARD_SCREENSHOTS") or pictures)
        self._pictures.mkdir(parents=True, exist_ok=True)
        self._tabs: dict[str, FrontEnd] = {}
        self._playwright = sync_playwright().start()
        self._chromium = self._playwright.chromium.launch(
            executable_path=executable, args=list(ARGUMENTS)
        )

    @contextmanager
    def tab(self, server: ComfyUI, label: str = "") -> Iterator[FrontEnd]:
        """The server's tab with its page opened anew, and `label` in the names of screenshots."""
        if server.url not in self._tabs:
            page = self._chromium.new_page(viewport={"width": 1600, "height": 1000})
            self._tabs[server.url] = FrontEnd(page, server, self._pictures)
        with self._tabs[server.url].open(label) as tab:
            yield tab

    def close(self) -> None:
        self._chromium.close()
        self._playwright.stop()
