// What the pack adds to ComfyUI's page: a panel on every task node, settings, and a menu entry.

import { app, listen } from "./lib/comfy.mjs"
import { commands, menuItems, toolboxCommands } from "./panel/edit_menu.mjs"
import { addCustomNodeDefs, translateNode } from "./lib/locale_fallback.mjs"
import { NodePanel, isTaskNode } from "./panel/panel.mjs"
import { settings } from "./settings/settings.mjs"

const LOOK_EVERY = 500 // ms
const panels = new Set()

function attach(node) {
  const panel = new NodePanel(node)
  panels.add(panel)
  const { onRemoved } = node
  node.onRemoved = function () {
    panels.delete(panel)
    onRemoved?.apply(this, arguments)
  }
}

function follow(event, tell) {
  listen(event, (detail) => {
    for (const panel of panels) tell(panel, detail)
  })
}

/** What a node depends on is spread over the graph: looking costs less than following every wire. */
function look() {
  if (document.hidden) return
  for (const panel of panels) {
    if (panel.gone) panels.delete(panel)
    else panel.look()
  }
}

app.registerExtension({
  name: "OneReward.Main",
  settings,
  commands,
  getNodeMenuItems: menuItems,
  getSelectionToolboxCommands: toolboxCommands,
  addCustomNodeDefs,

  nodeCreated(node) {
    translateNode(node)
    if (isTaskNode(node)) attach(node)
  },

  setup() {
    follow("execution_start", (panel) => panel.runs.reset())
    follow("execution_cached", (panel, detail) => panel.runs.cached(detail))
    follow("executing", (panel, id) => panel.runs.executing(id))
    follow("progress", (panel, detail) => panel.runs.step(detail))
    follow("execution_error", (panel, detail) => panel.runs.failed(detail))
    follow("execution_interrupted", (panel) => panel.runs.stopped())
    follow("onereward.preview", (panel, detail) => panel.runs.preview(detail))
    setInterval(look, LOOK_EVERY)
  },
})
