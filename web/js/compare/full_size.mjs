// The full-size dialog: the before/after view over the whole window, with zoom and pan.

import { CompareBatch, group } from "./batch.mjs"
import { onDrag } from "./drag.mjs"
import { icon } from "./icons.mjs"
import { Zoom } from "./zoom.mjs"
import { button, el, useStyle } from "../lib/dom.mjs"

const OURS = ["pointerdown", "pointermove", "pointerup", "wheel", "copy", "cut", "paste", "dblclick"]
// From here on the pixels themselves are shown instead of a soft picture.
const PIXELS = 2
const WHEEL_SPEED = 0.002
const PINCH_SPEED = 0.01
const LINE = 16

/**
 * Show pairs as CompareView does, from `index` and the divider's place `at` on, with the blend's
 * outline if `outlined`. Resolves when the dialog is closed, with the { index, at } that it was left
 * at; the focus is back where it was.
 */
export function openFullSize(pairs, index = 0, at = 0.5, outlined = false) {
  useStyle("theme.css")
  useStyle("compare.css")
  return new FullSize(pairs, index, at, outlined).closed
}

class FullSize {
  #zoom = new Zoom()
  #batch = new CompareBatch((image) => this.#picture(image))
  #image = null
  #space = false
  #fingers = new Map()
  #pointer = null
  #open = new AbortController()
  #percent = el("output", { class: "orc-percent" })
  #label = el("span", { class: "orc-caption or-quiet" })
  #view = el("div", { class: "orc-viewport" }, this.#batch.pane.element, this.#batch.message)

  constructor(pairs, index, at, outlined) {
    const named = { class: "onereward or-full", "aria-label": "Before and after, full size" }
    this.dialog = el("dialog", named, this.#view, this.#bar())
    this.closed = new Promise((resolve) => {
      this.dialog.addEventListener("close", () => resolve(this.#close()))
    })
    this.#listen()
    document.body.append(this.dialog)
    this.dialog.showModal()
    this.#batch.pane.at = at
    this.#batch.outlined = outlined
    this.#batch.show(pairs, index).then(() => this.#batch.pane.focus())
  }

  #bar() {
    const { pager, outline, source } = this.#batch
    const zooms = [
      button(icon("smaller"), "Zoom out (-)", () => this.#step(-1)), this.#percent,
      button(icon("larger"), "Zoom in (+)", () => this.#step(1)),
      button("fit", "Fit the window (0)", () => this.#fit()),
      button("1:1", "Actual size, 100 % (1)", () => this.#to(1)),
    ]
    const close = button(icon("close"), "Close (Esc)", () => this.dialog.close())
    const views = [outline, source, close]
    const groups = [group("orc-tools", "Zoom", ...zooms), group("orc-tools", "View", ...views)]
    return el("div", { class: "orc-bar" }, pager, this.#label, ...groups)
  }

  #listen() {
    const { signal } = this.#open
    // Capture on the window: ComfyUI gets no key, not even when nothing has the focus.
    window.addEventListener("keydown", (event) => this.#keyDown(event), { capture: true, signal })
    window.addEventListener("keyup", (event) => this.#keyUp(event), { capture: true, signal })
    window.addEventListener("blur", () => this.#letGo(), { signal })
    for (const name of OURS) this.dialog.addEventListener(name, (event) => event.stopPropagation())
    this.#view.addEventListener("wheel", (event) => this.#wheel(event), { passive: false })
    this.#view.addEventListener("pointermove", (event) => { this.#pointer = this.#point(event) })
    this.#view.addEventListener("pointerleave", () => { this.#pointer = null })
    this.#view.addEventListener("dblclick", (event) => this.#doubleClick(event))
    onDrag(this.#view, (event) => this.#press(event), (event) => this.#fingers.delete(event.pointerId))
    const sizes = new ResizeObserver(() => this.#measure())
    sizes.observe(this.#view)
    signal.addEventListener("abort", () => sizes.disconnect())
  }

  #close() {
    this.#open.abort()
    this.dialog.remove()
    return { index: this.#batch.index, at: this.#batch.pane.at }
  }

  #keyDown(event) {
    event.stopPropagation()
    const onButton = event.target.closest?.("button")
    if (event.key === " " && !onButton) this.#setSpace(true)
    else if (!this.#batch.key(event) && !this.#zoomKey(event)) {
      const held = onButton === this.#batch.source && [" ", "Enter"].includes(event.key)
      if (held) this.#batch.holdSource(true) // the button itself gets no keys
      return
    }
    event.preventDefault()
  }

  #keyUp(event) {
    event.stopPropagation()
    this.#batch.keyUp(event)
    if ([" ", "Enter"].includes(event.key)) this.#letGo()
  }

  #letGo() {
    this.#setSpace(false)
    this.#batch.holdSource(false)
  }

  #setSpace(on) {
    this.#space = on
    this.#view.classList.toggle("orc-space", on)
  }

  #zoomKey({ key, ctrlKey, metaKey, altKey }) {
    if (ctrlKey || metaKey || altKey) return false
    const larger = () => this.#step(1)
    const smaller = () => this.#step(-1)
    const keys = { "+": larger, "=": larger, "-": smaller, _: smaller }
    Object.assign(keys, { 0: () => this.#fit(), 1: () => this.#to(1), f: () => this.dialog.close() })
    const act = keys[key.toLowerCase()]
    act?.()
    return act !== undefined
  }

  /** A press pans a cropped picture; on the divider, and elsewhere, it moves the divider. */
  #press(event) {
    const { pane } = this.#batch
    if (event.button > 1 || pane.element.hidden) return null
    const panning = event.button === 1 || this.#space
    const pans = panning || (this.#zoom.cropped && !pane.isDivider(event.target))
    this.#fingers.set(event.pointerId, this.#point(event))
    pane.focus()
    if (pans) return (move) => this.#drag(move)
    pane.follow(event)
    return (move) => (this.#fingers.size > 1 ? this.#drag(move) : pane.follow(move))
  }

  /** Pan with one pointer, zoom with two (pinch). */
  #drag(event) {
    const place = this.#point(event)
    const last = this.#fingers.get(event.pointerId)
    const other = [...this.#fingers].find(([id]) => id !== event.pointerId)?.[1]
    this.#fingers.set(event.pointerId, place)
    if (other) this.#zoom.to(this.#zoom.scale * distance(place, other) / distance(last, other), other)
    else this.#zoom.pan(place[0] - last[0], place[1] - last[1])
    this.#draw()
  }

  #wheel(event) {
    event.preventDefault()
    const speed = event.ctrlKey ? PINCH_SPEED : WHEEL_SPEED
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : LINE
    this.#to(this.#zoom.scale * Math.exp(-event.deltaY * lines * speed), this.#point(event))
  }

  #doubleClick(event) {
    if (this.#zoom.fitted) this.#to(1, this.#point(event))
    else this.#fit()
  }

  #to(scale, point = this.#anchor()) {
    this.#zoom.to(scale, point)
    this.#draw()
  }

  #step(direction) {
    this.#zoom.step(direction, this.#anchor())
    this.#draw()
  }

  #fit() {
    this.#zoom.fit()
    this.#draw()
  }

  /** Keys zoom around the pointer if it is over the picture, else around the middle. */
  #anchor() {
    return this.#pointer ?? [this.#view.clientWidth / 2, this.#view.clientHeight / 2]
  }

  #point(event) {
    const box = this.#view.getBoundingClientRect()
    const scale = this.#view.clientWidth / box.width
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]
  }

  #picture(image) {
    this.#image = image
    this.#label.textContent = this.#batch.pair?.label ?? ""
    this.#measure()
  }

  #measure() {
    if (!this.#image) return
    const { naturalWidth, naturalHeight } = this.#image
    const room = [this.#view.clientWidth, this.#view.clientHeight]
    this.#zoom.set([naturalWidth, naturalHeight], room, window.devicePixelRatio)
    this.#draw()
  }

  #draw() {
    const { style, classList } = this.#batch.pane.element
    const [x, y, width, height] = this.#zoom.box
    const [left, top, seenWidth, seenHeight] = this.#zoom.seen
    const places = { left, top, width: seenWidth, height: seenHeight }
    const inside = { "--orc-x": x - left, "--orc-y": y - top, "--orc-w": width, "--orc-h": height }
    const all = Object.entries({ ...places, ...inside })
    for (const [name, value] of all) style.setProperty(name, `${value}px`)
    classList.toggle("orc-pixels", this.#zoom.scale >= PIXELS)
    this.#view.classList.toggle("orc-cropped", this.#zoom.cropped)
    this.#percent.textContent = `${this.#zoom.percent} %`
  }
}

function distance([x, y], [otherX, otherY]) {
  return Math.max(Math.hypot(x - otherX, y - otherY), 1)
}
