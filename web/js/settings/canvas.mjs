// Settings, default canvas: options for mask, crop and seam where no OneReward Canvas is connected.

import { el } from "../lib/dom.mjs"
import { Outcome, attempt, group, hint, section } from "./form.mjs"
import { disabledReason, store, watchStatus } from "./state.mjs"

const HINT =
  "For task nodes that no OneReward Canvas is connected to. All lengths are pixels of the picture."
const FIELDS = {
  grow: ["Grow", "number", 8, { min: -512, max: 512, step: 1 }, "The painted area grows by this"],
  blend: ["Blend", "number", 16, { min: 0, max: 512, step: 1 }, "Width of the fade outside it"],
  context: ["Context", "number", 1.5, { min: 1, max: 16, step: 0.1 }, "The crop's size over the mask's"],
  target: ["Target", "text", "auto", {}, "What the model works at: auto, native, 1.5 MP, 1024x768"],
  regions: ["Regions", "choice", "per region", ["per region", "one crop"], "Whether areas get a crop each"],
  seam: ["Seam", "number", 1, { min: 0, max: 1, step: 0.05 }, "Strength of the seam correction"],
  clean: ["Clean mask", "switch", true, {}, "Grey counts as painted, and pinholes of a brush are filled"],
  invert: ["Invert mask", "switch", false, {}, "What is not masked is painted"],
  alpha: ["Alpha", "choice", "keep", ["keep", "from blend"], "Whether repainted places become opaque"],
}

/** The section of the page. */
export function canvasSection() {
  const outcome = new Outcome()
  const fields = Object.entries(FIELDS).map(([name, about]) => [name, field(about)])
  const grid = el("div", { class: "or-grid" }, ...fields.map(([, { row }]) => row))
  const own = el("input", { type: "checkbox" })
  const choice = el("label", { class: "or-switch" }, own, "Each task's own defaults")
  const form = group("Default canvas", choice, grid)
  form.addEventListener("change", () => attempt(outcome, null, () => save(own, fields)))
  const element = section("Default canvas", form, hint(HINT), outcome.element)
  const show = (status) => {
    const why = disabledReason(status)
    form.disabled = Boolean(why)
    const canvas = status.preferences?.canvas
    own.checked = !canvas
    grid.hidden = !canvas
    for (const [name, { write }] of fields) write(canvas?.[name] ?? FIELDS[name][2])
    if (why) outcome.show(why)
  }
  watchStatus(element, show, (error) => outcome.fail(error))
  return element
}

async function save(own, fields) {
  const canvas = Object.fromEntries(fields.map(([name, { read }]) => [name, read()]))
  await store({ canvas: own.checked ? null : canvas })
  return own.checked ? "Saved: each task has its own defaults again." : "Saved."
}

/** One field: its row, and how its value is read and written. */
function field([label, kind, , options, tooltip]) {
  const input = {
    number: () => el("input", { type: "number", ...options }),
    text: () => el("input", { type: "text", size: 10, spellcheck: "false" }),
    switch: () => el("input", { type: "checkbox" }),
    choice: () => el("select", {}, ...options.map((each) => el("option", {}, each))),
  }[kind]()
  const key = { number: "valueAsNumber", switch: "checked" }[kind] ?? "value"
  const row = el("label", { class: "or-field", title: tooltip }, el("span", {}, label), input)
  return { row, read: () => input[key], write: (value) => write(input, key, value) }
}

/** A field with the focus is not overwritten: somebody is typing there. */
function write(input, key, value) {
  if (document.activeElement !== input) input[key] = value
}
