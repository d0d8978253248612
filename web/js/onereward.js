// The entry that ComfyUI loads: registers the extension, with a panel on every task node, the settings
// page, a menu entry and commands.

import { app, listen } from "./lib/comfy.mjs"
import { commands, menuItems, toolboxCommands } from "./panel/edit_menu.mjs"
import { addCustomNodeDefs, translateNode } from "./lib/locale_fallback.mjs"
import { NodePanel, isTaskNode } from "./panel/panel.mjs"
import { settings } from "./settings/settings.mjs"

const POLL_INTERVAL = 500 // ms
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

function forward(event, notify) {
  listen(event, (detail) => {
    for (const panel of panels) notify(panel, detail)
  })
}

/** What a node depends on is spread over the graph: polling costs less than a listener on every link. */
function poll() {
  if (document.hidden) return
  for (const panel of panels) {
    if (panel.removed) panels.delete(panel)
    else panel.poll()
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
    forward("execution_start", (panel) => panel.runs.reset())
    forward("execution_cached", (panel, detail) => panel.runs.cached(detail))
    forward("executing", (panel, id) => panel.runs.executing(id))
    forward("progress", (panel, detail) => panel.runs.step(detail))
    forward("execution_error", (panel, detail) => panel.runs.failed(detail))
    forward("execution_interrupted", (panel) => panel.runs.stopped())
    forward("onereward.preview", (panel, detail) => panel.runs.preview(detail))
    setInterval(poll, POLL_INTERVAL)
  },
})
