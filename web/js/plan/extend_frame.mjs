// A frame round the picture that the artist drags to say how far it is extended.

import { el, useStyle } from "../lib/dom.mjs"
import { Detail, PlanWords, cropBoxes, fitted, place, setShape, showPicture } from "./view.mjs"
import { SIDES, canvasOf, canvasWords, extendText, moved, sidesOf, sidesWords } from "./sides.mjs"
import { makeHandles, tellHandles } from "./handles.mjs"

const ROOM = 0.3 // of the picture's longer side: left free round the frame, to drag into

/** Shows plans of Extend; `onChange(text)` is given what extend_to is to hold. */
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
      this.words.element,
    )
  }

  /** The plan in `reply`, round the picture behind `pictureUrl`, if the page knows it. */
  show(reply, pictureUrl) {
    this.words.show(reply)
    if (this.dragging) return // the frame belongs to the hand that holds it
    this.picture = reply.source.slice(2)
    this.sides = sidesOf(reply)
    showPicture(this.image, pictureUrl)
    showPicture(this.overlay, reply.overlay)
    this.crops.replaceChildren(...cropBoxes(reply, this.detail))
    this.detail.show("")
    this.#look()
  }

  /** Why there is no plan; the frame stays, to be drawn elsewhere. */
  fail(error) {
    this.#stale()
    this.words.fail(error)
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
    this.words = new PlanWords()
  }

  /** Choose what part of the plane is seen: the frame with room round it. */
  #look() {
    const room = ROOM * Math.max(...this.picture)
    const [width, height] = canvasOf(this.sides, this.picture)
    const [left, top] = [this.sides.left + room, this.sides.top + room]
    this.seen = { left, top, width: width + 2 * room, height: height + 2 * room }
    setShape(this.world, this.seen.width, this.seen.height)
    this.frame.hidden = false
    this.#draw()
  }

  /** The frame where `sides` says. All places are parts of a whole, so any zoom of the page fits. */
  #draw() {
    const { sides, picture, seen } = this
    const canvas = canvasOf(sides, picture)
    const corner = [seen.left - sides.left, seen.top - sides.top]
    place(this.frame, [...corner, ...canvas], [seen.width, seen.height])
    place(this.source, [sides.left, sides.top, ...picture], canvas)
    tellHandles(this.handles, sides)
    this.numbers.replaceChildren(
      el("strong", {}, canvasWords(sides, picture)),
      ` (${sidesWords(sides)})`,
    )
  }

  /** What was drawn of the plan is not this frame's. */
  #stale() {
    this.detail.show("")
    this.overlay.hidden = true
    this.crops.replaceChildren()
  }

  /** How many px of the picture a way on the screen is, whatever zooms the page. */
  scale() {
    return this.seen.width / this.world.getBoundingClientRect().width
  }

  /** Move the frame; the plan that was shown is no longer its own. */
  move(start, names, by, both) {
    this.sides = moved(start, names, by, both)
    this.#stale()
    this.#draw()
  }

  /** The frame stays where it is: tell the node, unless it was there before. */
  settle(start) {
    this.#look()
    if (SIDES.some((name) => start[name] !== this.sides[name])) {
      this.onChange(extendText(this.sides, this.picture))
    }
  }
}
