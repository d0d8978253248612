// The comparison slider: two pictures on top of each other with a divider between them.

import { icon } from "./icons.mjs"
import { el } from "../lib/dom.mjs"

const STEP = 0.02
const LONG_STEP = 0.1
// How near the divider's line comes to a label before the label fades, in pixels.
const NEAR = 6

/** The pane itself: it neither loads pictures nor listens; its owner does both. */
export class ComparePane {
  #at = 0.5
  #sides = { before: layer("before"), after: layer("after"), outline: layer("outline") }
  #labels = { before: label("before"), after: label("after") }
  #divider = divider()

  constructor() {
    const parts = [...Object.values(this.#sides), ...Object.values(this.#labels), this.#divider]
    this.element = el("div", { class: "orc-pane" }, ...parts)
    new ResizeObserver(() => this.#fadeLabels()).observe(this.element)
    this.at = 0.5
  }

  /** Where the divider stands: 0 shows only the result, 1 only the source. */
  get at() {
    return this.#at
  }

  set at(value) {
    this.#at = Math.min(Math.max(value, 0), 1)
    const percent = Math.round(this.#at * 100)
    this.element.style.setProperty("--orc-at", `${this.#at * 100}%`)
    this.#divider.setAttribute("aria-valuenow", percent)
    this.#divider.setAttribute("aria-valuetext", `${percent} % before, ${100 - percent} % after`)
    this.#fadeLabels()
  }

  /** Put loaded images in place, null for none; without a source the result stands alone. */
  place({ before = null, after = null, outline = null }, afterLabel = "after") {
    const images = { before, after, outline }
    for (const [name, image] of Object.entries(images)) {
      const side = this.#sides[name]
      if (!image || image.parentNode !== side) side.replaceChildren(...(image ? [image] : []))
    }
    this.#labels.after.textContent = afterLabel
    this.element.hidden = !after
    this.element.classList.toggle("orc-alone", !before)
    if (after) this.element.style.setProperty("--orc-ratio", after.naturalWidth / after.naturalHeight)
    this.#fadeLabels()
  }

  /** Show the source all over, wherever the divider stands. */
  holdSource(on) {
    this.element.classList.toggle("orc-held", on)
  }

  focus() {
    this.#divider.focus({ preventScroll: true })
  }

  isDivider(target) {
    return this.#divider.contains(target)
  }

  /** Move the divider to a pointer. Ratios, as ComfyUI scales the page elements of its nodes. */
  follow(event) {
    const box = this.element.getBoundingClientRect()
    this.at = (event.clientX - box.left) / box.width
  }

  /** Move the divider by a key; false for a key that means nothing to it. */
  key({ key, shiftKey }) {
    const step = shiftKey ? LONG_STEP : STEP
    const places = { ArrowLeft: this.#at - step, ArrowRight: this.#at + step, Home: 0, End: 1 }
    if (!(key in places)) return false
    this.at = places[key]
    return true
  }

  #fadeLabels() {
    const { before, after } = this.#labels
    const line = this.#at * this.element.clientWidth
    before.classList.toggle("orc-passed", line < before.offsetLeft + before.offsetWidth + NEAR)
    after.classList.toggle("orc-passed", line > after.offsetLeft - NEAR)
  }
}

function layer(name) {
  return el("div", { class: `orc-side orc-side-${name}` })
}

function label(name) {
  return el("span", { class: `orc-label orc-label-${name}`, "aria-hidden": "true" }, name)
}

function divider() {
  const slider = { role: "slider", tabindex: 0, "aria-label": "Before and after" }
  const range = { "aria-valuemin": 0, "aria-valuemax": 100, "aria-orientation": "horizontal" }
  const grip = el("span", { class: "orc-grip" }, icon("grip"))
  return el("div", { class: "orc-divider", ...slider, ...range }, grip)
}
