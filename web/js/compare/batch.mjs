// A batch of before/after pairs in one pane: paging, the outline of the blend, holding the source.
// The view in a node and the full-size dialog both use it.

import { icon } from "./icons.mjs"
import { ComparePane } from "./pane.mjs"
import { Pictures } from "./pictures.mjs"
import { button, el } from "../lib/dom.mjs"

const LETTERS = /^[a-z]$/i

export class CompareBatch {
  pairs = []
  index = 0
  outlined = false
  step = null
  #pictures = new Pictures()
  #requested = 0
  #drawn = 0
  #changed

  /** `changed(image)` is called with the result's image, or null, whenever another one is shown. */
  constructor(changed = () => {}) {
    this.#changed = changed
    this.pane = new ComparePane()
    this.pane.element.hidden = true
    this.message = el("p", { class: "orc-message", role: "status" })
    this.count = el("span", { class: "orc-count", role: "status" })
    const turn = (name, label, by) => button(icon(name), label, () => this.turn(by))
    const previous = turn("previous", "Previous picture (Page Up)", -1)
    const next = turn("next", "Next picture (Page Down)", 1)
    this.pager = group("orc-pager", "Batch", previous, this.count, next)
    this.outline = button(icon("outline"), "Outline of the blend (O)", () => this.toggleOutline())
    this.source = sourceButton((on) => this.holdSource(on))
  }

  /** The pair that is shown; undefined before the first run. */
  get pair() {
    return this.pairs[this.index]
  }

  /** Show another batch from `index` on. */
  show(pairs, index) {
    this.step = null
    this.pairs = pairs
    this.index = index
    this.#pictures = new Pictures()
    return this.#draw()
  }

  /** Show a running edit's picture as the result; null goes back to the batch. */
  preview(url) {
    this.step = url
    return this.#draw()
  }

  /** Show the pair that lies `by` further, round and round. */
  turn(by) {
    this.index = (this.index + by + this.pairs.length) % this.pairs.length
    return this.#draw()
  }

  toggleOutline() {
    this.outlined = !this.outlined
    return this.#draw()
  }

  holdSource(on) {
    this.pane.holdSource(on)
    this.source.setAttribute("aria-pressed", on)
  }

  /** Act on a key; false for a key that means nothing here. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.pair) return false
    if (this.pane.key(event)) return true
    const act = this.#keys()[LETTERS.test(event.key) ? event.key.toLowerCase() : event.key]
    act?.()
    return act !== undefined
  }

  /** Act on a key that is released. */
  keyUp(event) {
    if (event.key.toLowerCase() === "b") this.holdSource(false)
  }

  #keys() {
    const keys = { b: () => this.holdSource(true) }
    if (this.pair.outline && !this.step) keys.o = () => this.toggleOutline()
    if (this.pairs.length < 2 || this.step) return keys
    keys.PageUp = keys["["] = () => this.turn(-1)
    keys.PageDown = keys["]"] = () => this.turn(1)
    return keys
  }

  /** A picture never replaces one that was requested later, whichever is loaded first. */
  async #draw() {
    this.#label()
    const requested = ++this.#requested
    const step = this.step
    const found = await this.#load(step)
    if (requested < this.#drawn || !found) return
    this.#drawn = requested
    this.message.textContent = found.message
    this.pane.place(found, step ? "step preview" : "after")
    this.source.hidden = !found.before
    this.#changed(found.after ?? null)
    if (!step && this.pairs.length > 1) this.#prefetchNeighbours()
  }

  #load(step) {
    if (step) return this.#pictures.step(this.pair?.before, step)
    if (this.pair) return this.#pictures.pair(this.pair, this.outlined)
    return { message: "Run the node to see before and after." }
  }

  #label() {
    this.count.textContent = `${this.index + 1} of ${this.pairs.length}`
    this.pager.hidden = this.pairs.length < 2 || Boolean(this.step)
    this.outline.hidden = !this.pair?.outline || Boolean(this.step)
    this.outline.setAttribute("aria-pressed", this.outlined)
  }

  #prefetchNeighbours() {
    for (const by of [1, this.pairs.length - 1]) {
      this.#pictures.prefetch(this.pairs[(this.index + by) % this.pairs.length])
    }
  }
}

/** Buttons that belong together; hidden ones leave no gap. */
export function group(name, label, ...buttons) {
  return el("div", { class: name, role: "group", "aria-label": label }, ...buttons)
}

/** A button that acts for as long as it is held, by pointer or by key. */
function sourceButton(hold) {
  const pressed = { "aria-pressed": "false" }
  const made = button(icon("source"), "Hold to see the source (B)", () => {}, pressed)
  const on = (names, handle) => names.forEach((name) => made.addEventListener(name, handle))
  on(["pointerdown"], (event) => {
    if (event.button !== 0) return
    made.setPointerCapture(event.pointerId)
    hold(true)
  })
  on(["keydown"], ({ key }) => (key === " " || key === "Enter") && hold(true))
  on(["lostpointercapture", "keyup", "blur"], () => hold(false))
  on(["contextmenu"], (event) => event.preventDefault()) // a long touch
  return made
}
