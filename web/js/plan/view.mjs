// A plan on its picture: what is painted, and which crops a model gets to see.

import { el, useStyle } from "../lib/dom.mjs"
import { Detail, PlanWords, cropBoxes, fitted, setShape, showPicture } from "./parts.mjs"

/** Shows the replies of POST /onereward/plan. */
export class PlanView {
  constructor() {
    useStyle("theme.css")
    useStyle("plan.css")
    this.picture = el("img", { class: "or-plan-picture", alt: "", draggable: "false" })
    this.overlay = el("img", { class: "or-plan-overlay", alt: "", draggable: "false" })
    this.crops = el("div", { class: "or-plan-crops" })
    this.detail = new Detail()
    this.area = fitted(this.picture, this.overlay, this.crops)
    this.words = new PlanWords()
    const stage = el("div", { class: "or-plan-stage" }, this.area, this.detail.element)
    this.element = el("div", { class: "onereward or-plan" }, stage, this.words.element)
  }

  /** The plan in `reply`, on the picture behind `pictureUrl`, if the page knows it. */
  show(reply, pictureUrl) {
    setShape(this.area, ...reply.size)
    showPicture(this.picture, pictureUrl)
    showPicture(this.overlay, reply.overlay)
    this.crops.replaceChildren(...cropBoxes(reply, this.detail))
    this.detail.show("")
    this.words.show(reply)
  }

  /** Why there is no plan, in place of the last one. */
  fail(error) {
    showPicture(this.overlay, null)
    this.crops.replaceChildren()
    this.detail.show("")
    this.words.fail(error)
  }
}
