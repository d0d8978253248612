// The pack's own page in ComfyUI's settings dialog: each part draws itself and keeps nothing there.

import { backendsPart } from "./backends.mjs"
import { canvasPart } from "./canvas.mjs"
import { ceilingsPart } from "./ceilings.mjs"
import { journalPart } from "./history.mjs"
import { keyPart } from "./key.mjs"
import { orderPart } from "./order.mjs"

const PARTS = [
  ["Backends", "Backends", backendsPart],
  ["Key", "fal key", keyPart],
  ["Order", "When no backend is connected", orderPart],
  ["Ceilings", "Spend ceilings", ceilingsPart],
  ["Canvas", "Default canvas", canvasPart],
  ["Jobs", "Jobs", journalPart],
]

/** ComfyUI's settings objects. Their values are never set: what is chosen goes to our own routes. */
export const settings = PARTS.map(([id, heading, draw], place) => ({
  id: `OneReward.${id}`,
  name: "\u00a0", // the heading says it already, and the row is ours
  category: ["OneReward", heading, id],
  sortOrder: PARTS.length - place,
  defaultValue: null,
  type: () => draw(),
}))
