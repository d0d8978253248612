// Settings, the auto rule: what is tried first when no backend is connected to a node.

import { button, el } from "../lib/dom.mjs"
import { Outcome, attempt, group, hint, part } from "./parts.mjs"
import { store, watchStatus, whyNot } from "./state.mjs"

const NAMES = { local: "Model on this machine", fal: "fal", preview: "Preview model" }
const CONDITIONS = {
  local: "if a OneReward model and a GPU are there",
  fal: "if a key is set; costs money",
  preview: "always",
}
const WORDS =
  "The first that can run is used. What stands behind the preview model never is: with fal there, no " +
  "edit costs money unless a node is connected to fal."

/** The part of the page. */
export function orderPart() {
  const list = el("ol", { class: "or-order" })
  const outcome = new Outcome()
  const form = group("Order", list)
  const element = part("When no backend is connected", form, hint(WORDS), outcome.element)
  const show = (status) => {
    const why = whyNot(status)
    form.disabled = Boolean(why)
    draw(list, status.preferences?.auto_order ?? [], (order) => save(outcome, form, order))
    if (why) outcome.say(why)
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

function draw(list, order, take) {
  const reached = order.indexOf("preview")
  list.replaceChildren(...order.map((kind, place) => item(kind, place, place <= reached)))

  function item(kind, place, used) {
    const words = used ? CONDITIONS[kind] : "never reached"
    const name = el("span", {}, el("strong", {}, NAMES[kind]), " ", quiet(words))
    return el("li", { class: used ? "" : "or-unused" }, name, mover(-1), mover(1))

    function mover(step) {
      const words = `Move ${NAMES[kind]} ${step < 0 ? "up" : "down"}`
      const outside = place + step < 0 || place + step >= order.length
      const sign = step < 0 ? "\u2191" : "\u2193"
      const click = () => move(kind, step)
      return button(sign, words, click, { disabled: outside, keydown: (event) => keys(event, kind) })
    }
  }

  function keys(event, kind) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key]
    if (!step) return
    event.preventDefault()
    event.stopPropagation()
    move(kind, step)
  }

  /** Another place for one of them; the focus stays with it. */
  async function move(kind, step) {
    const from = order.indexOf(kind)
    const to = from + step
    if (to < 0 || to >= order.length) return
    const moved = order.with(from, order[to]).with(to, kind)
    await take(moved)
    const buttons = [...list.children[to].querySelectorAll("button")]
    const same = buttons[step < 0 ? 0 : 1]
    const next = same.disabled ? buttons.find((each) => !each.disabled) : same
    next?.focus()
  }
}

function quiet(text) {
  return el("span", { class: "or-quiet" }, text)
}
