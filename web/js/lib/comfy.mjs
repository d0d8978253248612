// ComfyUI's front end, as far as the pack uses it: events, toasts, commands. No other file imports
// ComfyUI's scripts.

import { api } from "../../../../scripts/api.js"
import { app } from "../../../../scripts/app.js"

export { api, app }

/** Call `handle(detail)` on every event of this name that the server or ComfyUI's page sends. */
export function listen(name, handle) {
  api.addEventListener(name, (event) => handle(event.detail))
}

/** A short message in the corner; severity is "success", "info", "warn" or "error". */
export function toast(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail, life: 6000 })
}

/** Run one of ComfyUI's commands by its id. */
export function command(id) {
  return app.extensionManager.command.execute(id)
}

/** Redraw the graph: a node changed its size or its badges. */
export function redraw() {
  app.canvas?.setDirty(true, true)
}
