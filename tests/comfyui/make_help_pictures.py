"""Makes the picture of every node's help page with a real ComfyUI: what the preview model painted,
what the canvas code drew, or the node itself on the graph.

python tests/comfyui/make_help_pictures.py [OneRewardFill ...]
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_browser import Browser, FrontEnd, find_browser
from comfy_graph import api_prompt, fill_example, load
from comfy_server import PACK, ComfyUI, base_directory, running
from make_thumbnails import marked, pictures
from PIL import Image, ImageOps

WIDTH, GAP, MARGIN = 800, 6, 24
LIMIT = 45_000  # bytes
BLENDS = (0, 16, 64)
# In the middle of the Fill example's picture, and what to show of it around.
MASK_AT, AROUND_THE_MASK = {"x": 326, "y": 400}, (194, 280, 574, 660)

BUILD = """async ([types, links]) => {
    app.graph.clear();
    let x = 0, y = 0, right = 0, column = 0;
    const made = types.map(([type, at, values]) => {
        const node = LiteGraph.createNode(type);
        if (at > column) { x = right + 50; y = 0; column = at }
        node.pos = [x, y];
        node.setSize([Math.max(node.size[0], 300), node.size[1]]);
        y += node.size[1] + 60;
        right = Math.max(right, x + node.size[0]);
        app.graph.add(node);
        values.forEach((value, index) => { node.widgets[index].value = value });
        return node;
    });
    for (const [from, to, input] of links) {
        const slot = made[to].findInputSlot(input);
        const type = made[to].inputs[slot].type;
        made[from].connect(made[from].outputs.findIndex(o => o.type === type), made[to], slot);
    }
    app.canvas.deselectAll();
}"""
SHOW = """([left, top]) => {
    const boxes = app.graph.nodes.map(n => [n.pos[0], n.pos[1] - 30,
        n.pos[0] + n.size[0], n.pos[1] + n.size[1]]);
    const [x, y] = [0, 1].map(side => Math.min(...boxes.map(box => box[side])));
    const [right, bottom] = [2, 3].map(side => Math.max(...boxes.map(box => box[side])));
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [left - x, top - y];
    app.canvas.setDirty(true, true);
    return [right - x, bottom - y];
}"""

BOX = """type => {
    const {pos, size} = app.graph.nodes.find(node => node.type === type);
    const {scale, offset} = app.canvas.ds;
    const [x, y] = [0, 1].map(side => (pos[side] + offset[side]) * scale);
    const page = app.canvas.canvas.getBoundingClientRect();
    return {x: page.x + x - 8, y: page.y + y - 58 * scale, width: size[0] * scale + 16,
        height: (size[1] + 66) * scale};
}"""

Wired = tuple[str, int, Sequence[Any]]


@dataclass(frozen=True)
class Studio:
    """What the pictures are taken with."""

    comfyui: ComfyUI
    info: dict[str, Any]
    tab: FrontEnd

    def example(self, task: str) -> dict[str, Any]:
        """The prompt of a task's example on the preview model."""
        folder = PACK / "example_workflows"
        return api_prompt(load(folder / f"{task} (preview model).json"), self.info)

    def shown(self, prompt: dict[str, Any], *sources: Sequence[Any]) -> list[Image.Image]:
        """The pictures that come out of these sockets of a prompt, each [node id, output]."""
        extra = {
            f"show {at}": {"class_type": "PreviewImage", "inputs": {"images": list(source)}}
            for at, source in enumerate(sources)
        }
        run = self.comfyui.run(prompt | extra)
        if run.status != "success":
            raise RuntimeError(run.message("execution_error"))
        return [self.comfyui.picture(run.outputs[name]["images"][0]) for name in extra]

    def on_the_graph(
        self, types: Sequence[Wired], links: Sequence[tuple[int, int, str]]
    ) -> Image.Image:
        """Nodes in columns, wired, as they look on ComfyUI's page.

        Args:
            types: a node's type, its column, and the values of its first widgets.
            links: from and to, by their places in `types`, and the input's name.
        """
        page, corner = self.tab.page, (300, 120)
        page.evaluate(BUILD, [types, links])
        page.wait_for_timeout(1500)  # panels find their size
        width, height = page.evaluate(SHOW, corner)
        page.wait_for_timeout(1000)
        left, top = corner[0] - MARGIN, corner[1] - MARGIN
        box = {"width": width + 2 * MARGIN, "height": height + 2 * MARGIN}
        return Image.open(io.BytesIO(page.screenshot(clip={"x": left, "y": top, **box})))

    def node(self, kind: str) -> Image.Image:
        """The one node of that type, as it looks now."""
        box = self.tab.page.evaluate(BOX, kind)
        return Image.open(io.BytesIO(self.tab.page.screenshot(clip=box)))


def in_a_row(parts: Sequence[Image.Image]) -> Image.Image:
    """The pictures at one height, together WIDTH wide, with white gaps."""
    wide = sum(part.width / part.height for part in parts)
    height = round((WIDTH - GAP * (len(parts) - 1)) / wide)
    row = Image.new("RGB", (WIDTH, height), "white")
    left = 0
    for part in parts:
        width = min(round(part.width * height / part.height), WIDTH - left)
        row.paste(part.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), (left, 0))
        left += width + GAP
    return row


def edit(task: str) -> Callable[[Studio], Image.Image]:
    """Before, the mask on it, after: by the preview model."""

    def picture(studio: Studio) -> Image.Image:
        before, after, mask = pictures(studio.comfyui, studio.example(task))
        return in_a_row([before, marked(before, mask), after])

    return picture


def canvas(studio: Studio) -> Image.Image:
    """The Fill example's mask with every blend, as OneReward Plan draws it."""
    prompt = studio.example("Fill")
    [plan] = [key for key, node in prompt.items() if node["class_type"] == "OneRewardPlan"]
    defaults = studio.info["OneRewardCanvas"]["input"]["required"]
    values = {name: options["default"] for name, (_, options) in defaults.items()}
    wires = {name: prompt[plan]["inputs"][name] for name in ("image", "mask")}
    prompt[wires["mask"][0]]["inputs"] |= MASK_AT
    ours = ("OneReward", "Save")
    kept = {k: node for k, node in prompt.items() if not node["class_type"].startswith(ours)}
    for blend in BLENDS:
        kept[f"canvas {blend}"] = _node("OneRewardCanvas", **values | {"blend": blend})
        kept[f"plan {blend}"] = _node(
            "OneRewardPlan", task="fill", canvas=[f"canvas {blend}", 0], **wires
        )
    plans = studio.shown(kept, *([f"plan {blend}", 0] for blend in BLENDS))
    return in_a_row([plan.crop(AROUND_THE_MASK) for plan in plans])


def plan(studio: Studio) -> Image.Image:
    """Two areas far apart, and the crop of each."""
    prompt = studio.example("Fill")
    [composite] = [key for key, node in prompt.items() if node["class_type"] == "MaskComposite"]
    [own] = [key for key, node in prompt.items() if node["class_type"] == "OneRewardPlan"]
    second = {"destination": [composite, 0], "source": prompt[composite]["inputs"]["source"]}
    kinds = ("OneRewardFill", "SaveImage")
    kept = {key: node for key, node in prompt.items() if node["class_type"] not in kinds}
    kept["second"] = _node("MaskComposite", **second, x=60, y=560, operation="add")
    kept[own]["inputs"]["mask"] = ["second", 0]
    [drawn] = studio.shown(kept, [own, 0])
    return in_a_row([drawn]).resize((560, 560), Image.Resampling.LANCZOS)


def proof(studio: Studio) -> Image.Image:
    """Before, after, and what OneReward Proof gives out."""
    prompt = studio.example("Fill")
    [fill] = [key for key, node in prompt.items() if node["class_type"] == "OneRewardFill"]
    before = prompt[fill]["inputs"]["image"]
    prompt["proof"] = _node("OneRewardProof", before=before, after=[fill, 0], mask=[fill, 1])
    return in_a_row(studio.shown(prompt, before, [fill, 0], ["proof", 0]))


def wired(kind: str) -> Callable[[Studio], Image.Image]:
    """A backend beside the task node that uses it."""
    return lambda studio: studio.on_the_graph(
        [(kind, 0, ()), ("OneRewardFill", 1, ())], [(0, 1, "backend")]
    )


def collect(studio: Studio) -> Image.Image:
    nodes = [("OneRewardCollect", 0, ()), ("PreviewImage", 1, ())]
    return studio.on_the_graph(nodes, [(0, 1, "images")])


def model(studio: Studio) -> Image.Image:
    """ComfyUI's loaders with the files of the example, in front of the backend."""
    graph = load(fill_example("ComfyUI model"))
    values = {node["type"]: node.get("widgets_values", ()) for node in graph["nodes"]}
    loaders = [(kind, 0, values[kind]) for kind in ("UNETLoader", "DualCLIPLoader", "VAELoader")]
    nodes = [*loaders, ("OneRewardModelBackend", 1, ()), ("OneRewardFill", 2, ())]
    return studio.on_the_graph(
        nodes, [(0, 3, "model"), (1, 3, "clip"), (2, 3, "vae"), (3, 4, "backend")]
    )


def panel(studio: Studio) -> Image.Image:
    """The demo's Fill on its node, as planned and as done."""
    folder = PACK / "local_backend" / "cli" / "demo_scenes"
    picture = Image.open(folder / "fill.jpg").convert("RGB")
    mask = Image.open(folder / "fill_mask.png").convert("L")
    picture.putalpha(ImageOps.invert(mask))  # as the mask editor leaves it
    picture.save(studio.comfyui.folder / "input" / "demo fill.png")
    nodes = [
        ("LoadImage", 0, ("demo fill.png",)), ("OneRewardPreviewBackend", 0, ()),
        ("OneRewardFill", 1, ("a sailboat", 2, "fixed")), ("PreviewImage", 2, ()),
    ]  # fmt: skip
    links = [(0, 2, "image"), (0, 2, "mask"), (1, 2, "backend"), (2, 3, "images")]
    studio.on_the_graph(nodes, links)
    planned = studio.node("OneRewardFill")
    name, detail = studio.tab.run()
    if name != "execution_success":
        raise RuntimeError(detail)
    studio.tab.page.wait_for_timeout(2000)  # messages in the corner go, pictures load
    done = studio.node("OneRewardFill")
    sheet = Image.new("RGB", (planned.width * 2 + MARGIN, planned.height), "#202020")
    sheet.paste(planned, (0, 0))
    sheet.paste(done, (planned.width + MARGIN, 0))
    return sheet


PICTURES: dict[str, Callable[[Studio], Image.Image]] = {
    "panel": panel,
    "OneRewardFill": edit("Fill"),
    "OneRewardRemove": edit("Remove"),
    "OneRewardExtend": edit("Extend"),
    "OneRewardText": edit("Text"),
    "OneRewardCanvas": canvas,
    "OneRewardPlan": plan,
    "OneRewardProof": proof,
    "OneRewardPreviewBackend": wired("OneRewardPreviewBackend"),
    "OneRewardFalBackend": wired("OneRewardFalBackend"),
    "OneRewardLocalBackend": wired("OneRewardLocalBackend"),
    "OneRewardModelBackend": model,
    "OneRewardCollect": collect,
}


def save(picture: Image.Image, path: Path) -> None:
    """As a JPEG of at most WIDTH pixels and LIMIT bytes."""
    small = picture.convert("RGB")
    small.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    for quality in range(90, 40, -5):
        small.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= LIMIT:
            return
    raise RuntimeError(f"{path.name} is larger than {LIMIT} bytes at any quality.")


def main(wanted: list[str]) -> None:
    """Make the pictures of these nodes, or of all.

    Raises:
        RuntimeError: a run failed, or there is no browser.
    """
    browser = find_browser()
    if browser is None:
        raise RuntimeError("There is no Chromium or Chrome on the PATH.")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as open_until_done:
        comfyui = open_until_done.enter_context(running(base_directory(Path(scratch) / "base")))
        chromium = open_until_done.enter_context(closing(Browser(browser, Path(scratch))))
        tab = open_until_done.enter_context(chromium.tab(comfyui))
        studio = Studio(comfyui, comfyui.get("/object_info"), tab)
        for name in wanted or PICTURES:
            save(PICTURES[name](studio), PACK / "web" / "docs" / f"{name}.jpg")


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


if __name__ == "__main__":
    main(sys.argv[1:])
