// The pack's page in ComfyUI's settings dialog, as registerExtension takes it: the list of its sections.
// Each section draws itself; ComfyUI stores no value of them.

import { backendsSection } from "./backends.mjs"
import { canvasSection } from "./canvas.mjs"
import { jobHistorySection } from "./job_history.mjs"
import { keySection } from "./key.mjs"
import { orderSection } from "./order.mjs"
import { spendLimitsSection } from "./spend_limits.mjs"

const SECTIONS = [
  ["Backends", "Backends", backendsSection],
  ["Key", "fal key", keySection],
  ["Order", "When no backend is connected", orderSection],
  ["Ceilings", "Spend ceilings", spendLimitsSection],
  ["Canvas", "Default canvas", canvasSection],
  ["Jobs", "Jobs", jobHistorySection],
]

/** ComfyUI's settings objects. Their values are never set: what is chosen goes to the pack's routes. */
export const settings = SECTIONS.map(([id, heading, draw], place) => ({
  id: `OneReward.${id}`,
  name: "\u00a0", // the heading has the name already, and the section takes the whole row
  category: ["OneReward", heading, id],
  sortOrder: SECTIONS.length - place,
  defaultValue: null,
  type: () => draw(),
}))
