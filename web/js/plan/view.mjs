// The plan view: the mask and the numbered crops on the picture. The frame of Extend is made of the
// same elements.

import { el, useStyle } from "../lib/dom.mjs"

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
    this.summary = new PlanSummary()
    const stage = el("div", { class: "or-plan-stage" }, this.area, this.detail.element)
    this.element = el("div", { class: "onereward or-plan" }, stage, this.summary.element)
  }

  /** The plan in `reply`, on the picture behind `pictureUrl`, if the page knows it. */
  show(reply, pictureUrl) {
    setShape(this.area, ...reply.size)
    showPicture(this.picture, pictureUrl)
    showPicture(this.overlay, reply.overlay)
    this.crops.replaceChildren(...cropBoxes(reply, this.detail))
    this.detail.show("")
    this.summary.show(reply)
  }

  /** Why there is no plan, in place of the last one. */
  fail(error) {
    showPicture(this.overlay, null)
    this.crops.replaceChildren()
    this.detail.show("")
    this.summary.fail(error)
  }
}

/** Position `element` on a box [x, y, w, h] of an area of that size, in per cent of its parent. */
export function place(element, [x, y, width, height], [areaWidth, areaHeight]) {
  const percent = (part, whole) => `${(100 * part) / whole}%`
  element.style.left = percent(x, areaWidth)
  element.style.top = percent(y, areaHeight)
  element.style.width = percent(width, areaWidth)
  element.style.height = percent(height, areaHeight)
  return element
}

/** An area as large as its container allows, of the aspect ratio last given to setShape. */
export function fitted(...children) {
  return el("div", { class: "or-plan-fitted" }, ...children)
}

export function setShape(element, width, height) {
  element.style.setProperty("--or-aspect", width / height)
}

/** The picture, or a plain background where there is none. */
export function showPicture(img, url) {
  img.hidden = !url
  if (url && img.getAttribute("src") !== url) img.src = url
  if (!url) img.removeAttribute("src")
}

/** The crops as numbered boxes on an area of reply.size; hovered or focused, one shows its sizes. */
export function cropBoxes(reply, detail) {
  return reply.crops.map((crop, index) => {
    const text = cropText(crop, index + 1)
    const low = crop.box[1] + crop.box[3] / 2 > reply.size[1] / 2
    const show = () => detail.show(text, low)
    const hide = () => detail.show("")
    const attributes = { class: "or-plan-crop", tabindex: "0", role: "img", "aria-label": text }
    const listeners = { pointerenter: show, pointerleave: hide, focus: show, blur: hide }
    const number = el("span", { "aria-hidden": "true" }, String(index + 1))
    return place(el("div", { ...attributes, ...listeners }, number), crop.box, reply.size)
  })
}

/** A strip of text at the edge of the stage that is farther from its crop. */
export class Detail {
  constructor() {
    this.element = el("div", { class: "or-plan-detail", hidden: true, "aria-hidden": "true" })
  }

  show(text, low = false) {
    this.element.hidden = !text
    this.element.textContent = text
    this.element.classList.toggle("or-above", low)
  }
}

function cropText({ box: [x, y, width, height], seen }, number) {
  const megapixels = ((seen[0] * seen[1]) / 2 ** 20).toFixed(2)
  const sizes = `${width}x${height}, seen at ${seen.join("x")} (${megapixels} MP)`
  return `Crop ${number} at x ${x}, y ${y}: ${sizes}`
}

/** The plan's summary, with its notes below. */
export class PlanSummary {
  constructor() {
    this.line = el("p", { class: "or-plan-line" })
    this.notes = el("ul", { class: "or-plan-notes or-quiet" })
    this.element = el("div", { class: "or-plan-summary", "aria-live": "polite" }, this.line, this.notes)
  }

  show(reply) {
    this.line.classList.remove("or-error")
    this.line.textContent = reply.words
    this.notes.replaceChildren(...reply.notes.map((note) => el("li", {}, note)))
  }

  fail(error) {
    this.line.classList.add("or-error")
    this.line.textContent = error.input ? `${error.input}: ${error.message}` : error.message
    this.notes.replaceChildren()
  }
}
