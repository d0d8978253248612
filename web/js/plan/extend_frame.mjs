// The frame of Extend (outpaint): dragged round the picture, it sets how far each side is extended.

import { el, useStyle } from "../lib/dom.mjs"
import { Detail, PlanSummary, cropBoxes, fitted, place, setShape, showPicture } from "./view.mjs"
import { SIDES, canvasOf, canvasText, extendText, moved, sidesOf, sidesText } from "./sides.mjs"
import { labelHandles, makeHandles } from "./handles.mjs"

const ROOM = 0.3 // of the picture's longer side: left free round the frame, to drag into

/** Shows plans of Extend; `onChange(text)` gets the new value of extend_to. */
export class ExtendFrame {
  constructor({ onChange }) {
    useStyle("theme.css")
    useStyle("plan.css")
    this.onChange = onChange
    this.sides = null
    this.picture = [1, 1]
    this.#build()
    this.element = el(
      "div",
      { class: "onereward or-plan or-extend" },
      el("div", { class: "or-plan-stage" }, this.world, this.detail.element),
      this.numbers,
      this.summary.element,
    )
  }

  /** The plan in `reply`, round the picture behind `pictureUrl`, if the page knows it. */
  show(reply, pictureUrl) {
    this.summary.show(reply)
    if (this.dragging) return // the frame follows the pointer alone
    this.picture = reply.source.slice(2)
    this.sides = sidesOf(reply)
    showPicture(this.image, pictureUrl)
    showPicture(this.overlay, reply.overlay)
    this.crops.replaceChildren(...cropBoxes(reply, this.detail))
    this.detail.show("")
    this.#look()
  }

  /** Why there is no plan; the frame stays, to be dragged elsewhere. */
  fail(error) {
    this.#stale()
    this.summary.fail(error)
  }

  #build() {
    this.image = el("img", { class: "or-plan-picture", alt: "", draggable: "false" })
    this.overlay = el("img", { class: "or-plan-overlay", alt: "", draggable: "false" })
    this.crops = el("div", { class: "or-plan-crops" })
    this.source = el("div", { class: "or-extend-source" }, this.image)
    this.handles = makeHandles(this)
    this.frame = el(
      "div",
      { class: "or-extend-frame", role: "group", "aria-label": "New canvas", hidden: true },
      this.source, this.overlay, this.crops, ...this.handles,
    )
    this.world = fitted(this.frame)
    this.numbers = el("p", { class: "or-extend-numbers" })
    this.detail = new Detail()
    this.summary = new PlanSummary()
  }

  /** Choose the visible part of the plane: the frame with room round it. */
  #look() {
    const room = ROOM * Math.max(...this.picture)
    const [width, height] = canvasOf(this.sides, this.picture)
    const [left, top] = [this.sides.left + room, this.sides.top + room]
    this.seen = { left, top, width: width + 2 * room, height: height + 2 * room }
    setShape(this.world, this.seen.width, this.seen.height)
    this.frame.hidden = false
    this.#draw()
  }

  /** Draw the frame at `sides`. All positions are in per cent, so they hold at any zoom of the page. */
  #draw() {
    const { sides, picture, seen } = this
    const canvas = canvasOf(sides, picture)
    const corner = [seen.left - sides.left, seen.top - sides.top]
    place(this.frame, [...corner, ...canvas], [seen.width, seen.height])
    place(this.source, [sides.left, sides.top, ...picture], canvas)
    labelHandles(this.handles, sides)
    this.numbers.replaceChildren(
      el("strong", {}, canvasText(sides, picture)),
      ` (${sidesText(sides)})`,
    )
  }

  /** Hide the drawn plan: it belongs to another frame. */
  #stale() {
    this.detail.show("")
    this.overlay.hidden = true
    this.crops.replaceChildren()
  }

  /** Pixels of the picture per screen pixel, at any zoom of the page. */
  scale() {
    return this.seen.width / this.world.getBoundingClientRect().width
  }

  /** Move the frame; the plan shown before is hidden. */
  move(start, names, by, both) {
    this.sides = moved(start, names, by, both)
    this.#stale()
    this.#draw()
  }

  /** The drag is over: notify the node, unless the frame is where it was before. */
  settle(start) {
    this.#look()
    if (SIDES.some((name) => start[name] !== this.sides[name])) {
      this.onChange(extendText(this.sides, this.picture))
    }
  }
}
