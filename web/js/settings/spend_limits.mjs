// Settings, spend limits: what no workflow on this machine may spend more than, whatever its own caps
// allow. The user reads "ceiling", as in the names of the preferences.

import { el } from "../lib/dom.mjs"
import { Outcome, attempt, group, hint, section } from "./form.mjs"
import { disabledReason, store, watchStatus } from "./state.mjs"

const HINT =
  "US dollars; 0 is no ceiling. Where a node's run_cap or session_cap is lower, the lower one counts."
const FIELDS = {
  run_ceiling: ["Ceiling for one run", "The most that one run of a node may cost"],
  session_ceiling: ["Ceiling for a session", "The most that all runs may cost until ComfyUI ends"],
}

/** The section of the page. */
export function spendLimitsSection() {
  const outcome = new Outcome()
  const inputs = Object.keys(FIELDS).map((name) => [name, input(name, outcome)])
  const rows = inputs.map(([name, field]) => labelled(FIELDS[name], field))
  const form = group("Spend ceilings", ...rows)
  const element = section("Spend ceilings", form, hint(HINT), outcome.element)
  const show = (status) => {
    const why = disabledReason(status)
    form.disabled = Boolean(why)
    for (const [name, field] of inputs) {
      if (document.activeElement !== field) field.value = status.preferences?.[name] ?? ""
    }
    if (why) outcome.show(why)
  }
  watchStatus(element, show, (error) => outcome.fail(error))
  return element
}

function labelled([label, tooltip], field) {
  const amount = el("span", {}, "$ ", field)
  return el("label", { class: "or-field", title: tooltip }, el("span", {}, label), amount)
}

function input(name, outcome) {
  const [label] = FIELDS[name]
  const field = el("input", {
    type: "number",
    min: 0,
    max: 10000,
    step: 0.5,
    "aria-label": `${label}, US dollars`,
    change: () => attempt(outcome, null, save),
  })

  async function save() {
    const amount = field.valueAsNumber // NaN where the field holds no number: the server refuses it
    await store({ [name]: amount })
    return amount ? `Saved: ${label} is $${amount}.` : `Saved: no ${label.toLowerCase()}.`
  }

  return field
}
