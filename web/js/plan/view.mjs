// A plan on its picture: what is painted, and which crops a model gets to see. The frame of Extend
// is made of the same elements.

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

/** Lay `element` on a box of its parent: x, y, w, h as parts of an area of that size. */
export function place(element, [x, y, width, height], [areaWidth, areaHeight]) {
  const percent = (part, whole) => `${(100 * part) / whole}%`
  element.style.left = percent(x, areaWidth)
  element.style.top = percent(y, areaHeight)
  element.style.width = percent(width, areaWidth)
  element.style.height = percent(height, areaHeight)
  return element
}

/** A room as large as its container allows, in the shape last given by setShape. */
export function fitted(...children) {
  return el("div", { class: "or-plan-fitted" }, ...children)
}

export function setShape(element, width, height) {
  element.style.setProperty("--or-aspect", width / height)
}

/** The picture, or a plain ground where there is none to show. */
export function showPicture(img, url) {
  img.hidden = !url
  if (url && img.getAttribute("src") !== url) img.src = url
  if (!url) img.removeAttribute("src")
}

/** The crops as numbered boxes on an area of reply.size; hovered or focused, one tells its sizes. */
export function cropBoxes(reply, detail) {
  return reply.crops.map((crop, index) => {
    const words = cropWords(crop, index + 1)
    const low = crop.box[1] + crop.box[3] / 2 > reply.size[1] / 2
    const tell = () => detail.show(words, low)
    const hush = () => detail.show("")
    const attributes = { class: "or-plan-crop", tabindex: "0", role: "img", "aria-label": words }
    const listeners = { pointerenter: tell, pointerleave: hush, focus: tell, blur: hush }
    const number = el("span", { "aria-hidden": "true" }, String(index + 1))
    return place(el("div", { ...attributes, ...listeners }, number), crop.box, reply.size)
  })
}

/** A strip of words at the stage's edge, away from what they are about. */
export class Detail {
  constructor() {
    this.element = el("div", { class: "or-plan-detail", hidden: true, "aria-hidden": "true" })
  }

  show(words, low = false) {
    this.element.hidden = !words
    this.element.textContent = words
    this.element.classList.toggle("or-above", low)
  }
}

function cropWords({ box: [x, y, width, height], seen }, number) {
  const megapixels = ((seen[0] * seen[1]) / 2 ** 20).toFixed(2)
  const sizes = `${width}x${height}, seen at ${seen.join("x")} (${megapixels} MP)`
  return `Crop ${number} at x ${x}, y ${y}: ${sizes}`
}

/** The plan's words with its notes under them. */
export class PlanWords {
  constructor() {
    this.line = el("p", { class: "or-plan-line" })
    this.notes = el("ul", { class: "or-plan-notes or-quiet" })
    this.element = el("div", { class: "or-plan-words", "aria-live": "polite" }, this.line, this.notes)
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
