// The badge above a node. Where ComfyUI has none to offer, the panel's own chip says the same.

import { redraw } from "../lib/comfy.mjs"

const texts = new WeakMap()

/** Show `text` above the node in place of what was there. */
export function setBadge(node, text) {
  if (!window.LGraphBadge || !Array.isArray(node.badges)) return
  const known = texts.has(node)
  texts.set(node, text)
  if (!known) node.badges.push(() => badgeOf(node))
  redraw()
}

function badgeOf(node) {
  return new window.LGraphBadge({ text: texts.get(node), fgColor: "#fff", bgColor: "#3b5b7a" })
}
