// Form elements that the sections of the settings page share: the frame, a status line, the request
// behind a button.

import { el, useStyle } from "../lib/dom.mjs"

/** A section of the page, as wide as its row lets it be. */
export function section(label, ...children) {
  useStyle("theme.css")
  useStyle("settings.css")
  const inner = el("div", { class: "or-section" }, ...children)
  return el("section", { class: "onereward or-settings", "aria-label": label }, inner)
}

/** A row of things beside each other, which wraps. */
export function row(...children) {
  return el("div", { class: "or-row" }, ...children)
}

/** A paragraph in the quiet colour. */
export function hint(text) {
  return el("p", { class: "or-quiet" }, text)
}

/** Controls that are disabled together. */
export function group(label, ...children) {
  return el("fieldset", { "aria-label": label }, ...children)
}

/** One line that says how the last attempt went; read aloud when it changes. */
export class Outcome {
  constructor() {
    this.element = el("p", { class: "or-outcome", role: "status" })
    this.attempts = 0
  }

  show(text) {
    this.element.classList.remove("or-error")
    this.element.textContent = text
  }

  fail(error) {
    this.element.classList.add("or-error")
    this.element.textContent = error.message
  }
}

/**
 * Do `action` while `control`, if any, is disabled. The text that it returns is shown, and so is its
 * error. Where attempts overlap, only the last one's outcome is shown: an older "Saved." must not
 * hide an error. True if it went well.
 */
export async function attempt(outcome, control, action) {
  const own = ++outcome.attempts
  outcome.show("\u2026")
  if (control) control.disabled = true
  try {
    const text = await action()
    if (own === outcome.attempts) outcome.show(text)
    return true
  } catch (error) {
    if (own === outcome.attempts) outcome.fail(error)
    return false
  } finally {
    if (control) control.disabled = false
  }
}

/** An amount of US dollars as text. */
export function money(amount) {
  return `$${amount.toFixed(amount !== 0 && amount < 1 ? 3 : 2)}`
}

/** A number of bytes as text. */
export function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} KB` : `${(bytes / 1e6).toFixed(1)} MB`
}
