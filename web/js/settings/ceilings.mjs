// Settings, spend ceilings: what no workflow on this machine may pass, whatever its own caps say.

import { el } from "../lib/dom.mjs"
import { Outcome, attempt, group, hint, part } from "./parts.mjs"
import { store, watchStatus, whyNot } from "./state.mjs"

const WORDS =
  "US dollars; 0 is no ceiling. Where a node's run_cap or session_cap is lower, the lower one counts."
const FIELDS = {
  run_ceiling: ["Ceiling for one run", "The most that one run of a node may cost"],
  session_ceiling: ["Ceiling for a session", "The most that all runs may cost until ComfyUI ends"],
}

/** The part of the page. */
export function ceilingsPart() {
  const outcome = new Outcome()
  const inputs = Object.keys(FIELDS).map((name) => [name, input(name, outcome)])
  const rows = inputs.map(([name, field]) => labelled(FIELDS[name], field))
  const form = group("Spend ceilings", ...rows)
  const element = part("Spend ceilings", form, hint(WORDS), outcome.element)
  const show = (status) => {
    const why = whyNot(status)
    form.disabled = Boolean(why)
    for (const [name, field] of inputs) {
      if (document.activeElement !== field) field.value = status.preferences?.[name] ?? ""
    }
    if (why) outcome.say(why)
  }
  watchStatus(element, show, (error) => outcome.fail(error))
  return element
}

function labelled([label, words], field) {
  return el("label", { class: "or-field", title: words }, el("span", {}, label), el("span", {}, "$ ", field))
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
    const amount = field.valueAsNumber // not a number where nothing can be read: the server says so
    await store({ [name]: amount })
    return amount ? `Saved: ${label} is $${amount}.` : `Saved: no ${label.toLowerCase()}.`
  }

  return field
}
