// Settings, fal key: it goes to the server once and never comes back.

import { button, el } from "../lib/dom.mjs"
import { postJson } from "../lib/server.mjs"
import { Outcome, attempt, group, hint, part, row } from "./parts.mjs"
import { ELSEWHERE, refresh, watchStatus } from "./state.mjs"

const SOURCES = {
  none: "No key is set. Make one at https://fal.ai/dashboard/keys.",
  "not usable": "There is a key that cannot be used.",
}

/** The part of the page. */
export function keyPart() {
  const outcome = new Outcome()
  const source = el("p")
  const words = hint("")
  const remove = button("Remove", "Remove the key file", () => send(outcome, remove, ""))
  const test = button("Test", "Test the key, free of charge", () => run(outcome, test))
  const form = group("Set the key", row(...entry(outcome), remove))
  const element = part("fal key", source, row(form, test), words, outcome.element)
  const show = (status) => {
    source.textContent = SOURCES[status.key] ?? `A key is set, ${status.key}.`
    words.textContent = status.here ? status.key_form.words : ELSEWHERE
    form.disabled = !status.here || !status.key_form.usable
    remove.disabled = status.key === "none"
    test.disabled = status.key === "none"
  }
  watchStatus(element, show, (error) => outcome.fail(error))
  return element
}

/** The field and its button. What is typed leaves the page with the click. */
function entry(outcome) {
  const field = el("input", {
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    size: 30,
    placeholder: "Paste a key",
    "aria-label": "fal key",
    keydown: (event) => event.key === "Enter" && take(),
  })
  const save = button("Save", "Save the key on this machine", take)

  function take() {
    const key = field.value.trim()
    field.value = ""
    if (key) send(outcome, save, key)
    else outcome.fail({ message: "There is nothing to save. Paste a key first." })
  }

  return [field, save]
}

async function send(outcome, control, key) {
  const done = await attempt(outcome, control, async () => {
    await postJson("key", { key })
    return key ? "Saved. Test asks fal whether it knows the key." : "Removed."
  })
  if (done) await refresh()
}

function run(outcome, test) {
  return attempt(outcome, test, async () => (await postJson("test", { server: "fal" })).words)
}
