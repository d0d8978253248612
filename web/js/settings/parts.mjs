// What the parts of the settings page have in common: a frame, a line for outcomes, attempts.

import { el, useStyle } from "../lib/dom.mjs"

/** A part of the page, as wide as its row lets it be. */
export function part(label, ...children) {
  useStyle("theme.css")
  useStyle("settings.css")
  const inner = el("div", { class: "or-part" }, ...children)
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

/** Controls that are switched off together. */
export function group(label, ...children) {
  return el("fieldset", { "aria-label": label }, ...children)
}

/** One line that says how the last attempt went; read aloud when it changes. */
export class Outcome {
  constructor() {
    this.element = el("p", { class: "or-outcome", role: "status" })
    this.attempts = 0
  }

  say(text) {
    this.element.classList.remove("or-error")
    this.element.textContent = text
  }

  fail(error) {
    this.element.classList.add("or-error")
    this.element.textContent = error.message
  }
}

/**
 * Do `work` while `control`, if any, is switched off; what it returns is said, as is what went wrong.
 * Of attempts that overlap, only the last one's outcome is: an older "Saved." must not hide an error.
 * True if it went well.
 */
export async function attempt(outcome, control, work) {
  const own = ++outcome.attempts
  outcome.say("\u2026")
  if (control) control.disabled = true
  try {
    const text = await work()
    if (own === outcome.attempts) outcome.say(text)
    return true
  } catch (error) {
    if (own === outcome.attempts) outcome.fail(error)
    return false
  } finally {
    if (control) control.disabled = false
  }
}

/** US dollars for people. */
export function money(amount) {
  return `$${amount.toFixed(amount !== 0 && amount < 1 ? 3 : 2)}`
}

/** Bytes for people. */
export function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} KB` : `${(bytes / 1e6).toFixed(1)} MB`
}
