// DOM helpers without a framework: elements, buttons, style sheets.

/**
 * One element. Attributes whose value is a function are event listeners, `true` sets an attribute
 * without a value, and false, null and undefined leave it out. Text never becomes HTML.
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value)
    else if (value === true) element.setAttribute(name, "")
    else if (value !== false && value != null) element.setAttribute(name, value)
  }
  element.append(...children.filter((child) => child != null))
  return element
}

/** A button; `label` is its tooltip and its accessible name. */
export function button(text, label, click, attributes = {}) {
  return el("button", { type: "button", title: label, "aria-label": label, click, ...attributes }, text)
}

/** Load one of the pack's style sheets, once; `name` is a file of web/css. */
export function useStyle(name) {
  const href = new URL(`../../css/${name}`, import.meta.url).href
  if (document.querySelector(`link[href="${href}"]`)) return
  document.head.append(el("link", { rel: "stylesheet", href }))
}

/** `width` and `height` of the largest box of this shape that fits into another. */
export function fitInto(width, height, boxWidth, boxHeight) {
  const scale = Math.min(boxWidth / width, boxHeight / height)
  return [width * scale, height * scale]
}
