// Settings, fal key: a form that sends the key to the server. The server never sends it back.

import { button, el } from "../lib/dom.mjs"
import { postJson } from "../lib/server.mjs"
import { Outcome, attempt, group, hint, row, section } from "./form.mjs"
import { ELSEWHERE, refresh, watchStatus } from "./state.mjs"

const SOURCES = {
  none: "No key is set. Make one at https://fal.ai/dashboard/keys.",
  "not usable": "There is a key that cannot be used.",
}

/** The section of the page. */
export function keySection() {
  const outcome = new Outcome()
  const source = el("p")
  const note = hint("")
  const remove = button("Remove", "Remove the key file", () => send(outcome, remove, ""))
  const test = button("Test", "Test the key, free of charge", () => run(outcome, test))
  const form = group("Set the key", row(...entry(outcome), remove))
  const element = section("fal key", source, row(form, test), note, outcome.element)
  const show = (status) => {
    source.textContent = SOURCES[status.key] ?? `A key is set, ${status.key}.`
    note.textContent = status.here ? status.key_form.words : ELSEWHERE
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
