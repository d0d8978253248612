// The before/after view in a node (a comparison slider): source left of the divider, result right of it.

import { CompareBatch, group } from "./batch.mjs"
import { onDrag, stopPropagation } from "./drag.mjs"
import { icon } from "./icons.mjs"
import { button, el, useStyle } from "../lib/dom.mjs"
import { openFullSize } from "./full_size.mjs"

export class CompareView {
  #batch = new CompareBatch()
  #caption = ""
  #captionLine = el("p", { class: "orc-caption or-quiet" })
  #fullButton = button(icon("full"), "Full size (F)", () => this.#full())
  #onFullSize

  /**
   * `onFullSize(pairs, index, at, outlined)` opens the full size; what it returns, or promises, may be
   * { index, at }: the pair and the place of the divider to come back to.
   */
  constructor({ onFullSize = openFullSize } = {}) {
    useStyle("theme.css")
    useStyle("compare.css")
    this.#onFullSize = onFullSize
    this.element = el("div", {
      class: "onereward or-compare", role: "group", "aria-label": "Before and after",
      keydown: (event) => this.#keyDown(event), keyup: (event) => this.#batch.keyUp(event),
      focusout: (event) => this.#leave(event),
    }, this.#frame(), this.#captionLine)
    this.show([])
  }

  /** The number of the pair that is shown, from 0. */
  get index() {
    return this.#batch.index
  }

  /**
   * Show pairs { before, after, outline, label } of URLs; `outline` and `label` may be missing, and
   * so may `before`. A batch of as many pictures as the last stays at the same index.
   */
  show(pairs, { caption = "" } = {}) {
    const same = pairs.length === this.#batch.pairs.length
    if (!same) this.#batch.pane.at = 0.5
    this.#caption = caption
    const shown = this.#batch.show(pairs, same ? this.#batch.index : 0)
    this.#label()
    return shown
  }

  /** Show a running edit's picture on the after side, until null or show(). */
  preview(url) {
    const shown = this.#batch.preview(url)
    this.#label()
    return shown
  }

  #frame() {
    const { pane, pager, outline, source, message } = this.#batch
    const tools = group("orc-tools", "View", outline, source, this.#fullButton)
    for (const part of [pager, tools]) {
      part.addEventListener("pointerdown", stopPropagation) // else the node would be dragged
      part.addEventListener("dblclick", stopPropagation)
      part.addEventListener("click", () => this.#label())
    }
    onDrag(pane.element, (event) => this.#press(event))
    pane.element.addEventListener("dblclick", (event) => {
      stopPropagation(event)
      this.#full()
    })
    return el("div", { class: "orc-frame" }, pane.element, message, pager, tools)
  }

  #press(event) {
    const { pane } = this.#batch
    if (event.button !== 0) return null
    pane.focus()
    pane.follow(event)
    return (move) => pane.follow(move)
  }

  #keyDown(event) {
    const pressed = [" ", "Enter"].includes(event.key) && event.target.closest("button")
    if (pressed) return stopPropagation(event) // the browser presses the button
    const full = event.key.toLowerCase() === "f" && !event.ctrlKey && !event.metaKey && !event.altKey
    if (full) this.#full()
    else if (!this.#batch.key(event)) return
    this.#label()
    stopPropagation(event)
    event.preventDefault()
  }

  #leave(event) {
    if (!this.element.contains(event.relatedTarget)) this.#batch.holdSource(false)
  }

  async #full() {
    const { pairs, index, pane, step, outlined } = this.#batch
    if (!pairs.length || step) return
    const left = await this.#onFullSize(pairs, index, pane.at, outlined)
    if (!left || this.#batch.pairs !== pairs) return
    pane.at = left.at
    this.#batch.turn(left.index - index)
    this.#label()
  }

  #label() {
    const { pair, step } = this.#batch
    const text = [pair?.label, this.#caption].filter(Boolean).join(" \u00b7 ")
    // Not of this picture, but its line stays: the picture must not jump while an edit runs.
    this.#captionLine.textContent = step && text ? "\u00a0" : text
    this.#fullButton.hidden = !pair || Boolean(step)
  }
}
