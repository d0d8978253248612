// The context menu and commands "Edit with OneReward" of a Load Image node: they add a task node and a
// preview, wired and in view.

import { app, command, toast } from "../lib/comfy.mjs"
import { translateEntry } from "../lib/locale_fallback.mjs"

const SOURCES = ["LoadImage", "LoadImageOutput"]
const TASKS = [
  { name: "Fill", label: "Fill the mask", masked: true },
  { name: "Remove", label: "Remove an object", masked: true },
  { name: "Extend", label: "Extend the picture", masked: false },
  { name: "Text", label: "Write text", masked: true },
]
const COMMAND = "OneReward.EditSelected"
const TITLE = "Edit with OneReward"
const GAP = 60
// What a node takes on the graph beyond its own box: the title above, a picture that comes later.
const TITLE_BAR = 30
const PREVIEW_SIZE = [320, 340]

/** What to add to the menu of a node: four edits for a Load Image node, nothing for others. */
export function menuItems(node) {
  if (!isSource(node)) return []
  const submenu = { options: taskItems(node) }
  return [{ content: translateEntry(TITLE), has_submenu: true, submenu }]
}

/** The same as commands on the one selected Load Image node, so that they can have keys. */
export const commands = [
  {
    id: COMMAND,
    label: "Edit the selected picture with OneReward",
    icon: "pi pi-sparkles",
    function: () => withSelected(showMenu),
  },
  ...TASKS.map((task) => ({
    id: `${COMMAND}.${task.name}`,
    label: `Edit the selected picture with OneReward: ${task.label}`,
    icon: "pi pi-sparkles",
    function: () => withSelected((node) => editWith(task, node)),
  })),
]

/** The commands that the toolbar above a selected item offers. */
export function toolboxCommands(item) {
  return isSource(item) ? [COMMAND] : []
}

function isSource(node) {
  return SOURCES.includes(node?.type)
}

function taskItems(node) {
  return TASKS.map((task) => ({
    content: translateEntry(task.label),
    callback: () => void editWith(task, node),
  }))
}

function withSelected(act) {
  const selected = [...app.canvas.selectedItems].filter(isSource)
  if (selected.length === 1) return act(selected[0])
  toast("warn", "OneReward", "Select one Load Image node first.")
}

function showMenu(node) {
  const { scale, offset } = app.canvas.ds
  const page = app.canvas.canvas.getBoundingClientRect()
  const left = page.left + (node.pos[0] + node.size[0] + offset[0]) * scale
  const top = page.top + (node.pos[1] + offset[1]) * scale
  return new LiteGraph.ContextMenu(taskItems(node), { title: translateEntry(TITLE), left, top })
}

async function editWith(task, source) {
  const [edit, preview] = asOneStep(() => addNodes(task, source))
  await bringIntoView([source, edit, preview])
  // The mask editor opens for the selected node, and stays with it.
  if (task.masked) {
    app.canvas.selectItems([source])
    await command("Comfy.MaskEditor.OpenMaskEditor")
  }
  app.canvas.selectItems([edit])
}

/** One entry in ComfyUI's undo history for all that `change` does. */
function asOneStep(change) {
  app.canvas.emitBeforeChange()
  try {
    return change()
  } finally {
    app.canvas.emitAfterChange()
  }
}

function addNodes(task, source) {
  const edit = LiteGraph.createNode(`OneReward${task.name}`)
  const preview = LiteGraph.createNode("PreviewImage")
  preview.setSize(PREVIEW_SIZE)
  const taken = source.graph.nodes.map(boxOf)
  const [x, y] = freeSpot(source, edit, preview, taken)
  edit.pos = [x, y]
  preview.pos = [x + edit.size[0] + GAP, y]
  source.graph.add(edit)
  source.graph.add(preview)
  connect(source, "IMAGE", edit, "image")
  if (task.masked) connect(source, "MASK", edit, "mask")
  connect(edit, "IMAGE", preview, "images")
  return [edit, preview]
}

function connect(from, type, to, input) {
  const output = from.outputs.findIndex((slot) => slot.type === type)
  from.connect(output, to, to.findInputSlot(input))
}

/** Right of the source, or below what lies there. */
function freeSpot(source, edit, preview, taken) {
  const x = source.pos[0] + source.size[0] + GAP
  const width = edit.size[0] + GAP + preview.size[0]
  const height = Math.max(edit.size[1], preview.size[1])
  let y = source.pos[1]
  for (;;) {
    const wanted = [x - GAP / 2, y - TITLE_BAR, width + GAP, height + TITLE_BAR]
    const below = taken.filter((box) => overlap(box, wanted)).map((box) => box[1] + box[3])
    if (!below.length) return [x, y]
    y = Math.max(...below) + TITLE_BAR + GAP / 2
  }
}

function boxOf(node) {
  const height = node.flags?.collapsed ? 0 : node.size[1]
  return [node.pos[0], node.pos[1] - TITLE_BAR, node.size[0], height + TITLE_BAR]
}

function overlap([x1, y1, w1, h1], [x2, y2, w2, h2]) {
  return x1 < x2 + w2 && x2 < x1 + w1 && y1 < y2 + h2 && y2 < y1 + h1
}

async function bringIntoView(nodes) {
  const [left, top, width, height] = app.canvas.visible_area
  const inside = ([x, y, w, h]) =>
    x >= left && y >= top && x + w <= left + width && y + h <= top + height
  app.canvas.selectItems(nodes)
  if (!nodes.map(boxOf).every(inside)) await command("Comfy.Canvas.FitView")
}
