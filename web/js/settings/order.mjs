// Settings, the auto rule: the order in which backends are tried where a node has none connected.

import { button, el } from "../lib/dom.mjs"
import { Outcome, attempt, group, hint, section } from "./form.mjs"
import { disabledReason, store, watchStatus } from "./state.mjs"

const NAMES = { local: "Model on this machine", fal: "fal", preview: "Preview model" }
const CONDITIONS = {
  local: "if a OneReward model and a GPU are there",
  fal: "if a key is set; costs money",
  preview: "always",
}
const HINT =
  "The first that can run is used. A backend after the preview model is never used: with fal there, no " +
  "edit costs money unless a node is connected to fal."

/** The section of the page. */
export function orderSection() {
  const list = el("ol", { class: "or-order" })
  const outcome = new Outcome()
  const form = group("Order", list)
  const element = section("When no backend is connected", form, hint(HINT), outcome.element)
  const show = (status) => {
    const why = disabledReason(status)
    form.disabled = Boolean(why)
    draw(list, status.preferences?.auto_order ?? [], (order) => save(outcome, form, order))
    if (why) outcome.show(why)
  }
  watchStatus(element, show, (error) => outcome.fail(error))
  return element
}

function save(outcome, form, order) {
  return attempt(outcome, form, async () => {
    await store({ auto_order: order })
    return "Saved."
  })
}

function draw(list, order, onMove) {
  const reached = order.indexOf("preview")
  list.replaceChildren(...order.map((kind, place) => item(kind, place, place <= reached)))

  function item(kind, place, used) {
    const condition = used ? CONDITIONS[kind] : "never reached"
    const name = el("span", {}, el("strong", {}, NAMES[kind]), " ", quiet(condition))
    return el("li", { class: used ? "" : "or-unused" }, name, mover(-1), mover(1))

    function mover(step) {
      const label = `Move ${NAMES[kind]} ${step < 0 ? "up" : "down"}`
      const outside = place + step < 0 || place + step >= order.length
      const sign = step < 0 ? "\u2191" : "\u2193"
      const click = () => move(kind, step)
      return button(sign, label, click, { disabled: outside, keydown: (event) => keys(event, kind) })
    }
  }

  function keys(event, kind) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key]
    if (!step) return
    event.preventDefault()
    event.stopPropagation()
    move(kind, step)
  }

  /** Move one entry; the focus moves with it. */
  async function move(kind, step) {
    const from = order.indexOf(kind)
    const to = from + step
    if (to < 0 || to >= order.length) return
    const moved = order.with(from, order[to]).with(to, kind)
    await onMove(moved)
    const buttons = [...list.children[to].querySelectorAll("button")]
    const same = buttons[step < 0 ? 0 : 1]
    const next = same.disabled ? buttons.find((each) => !each.disabled) : same
    next?.focus()
  }
}

function quiet(text) {
  return el("span", { class: "or-quiet" }, text)
}
