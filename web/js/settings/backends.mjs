// Settings, Backends: which backends can run here, and a connection test of every server, free of charge.

import { button, el } from "../lib/dom.mjs"
import { postJson } from "../lib/server.mjs"
import { Outcome, attempt, hint, section } from "./form.mjs"
import { watchStatus } from "./state.mjs"

const SIGNS = { ready: ["\u2713", "ready"], missing: ["\u2013", "not there"], broken: ["!", "trouble"] }
const PREVIEW = "Comes with the pack and always runs. It shows how an edit works; it is not OneReward."

/** The section of the page. */
export function backendsSection() {
  const list = el("ul", { class: "or-backends" })
  const trouble = new Outcome()
  const now = hint("")
  const element = section("Backends", list, now, trouble.element)
  const show = (status) => {
    list.replaceChildren(...lines(status))
    now.textContent = status.note
    trouble.fail({ message: status.trouble.join(" ") })
  }
  watchStatus(element, show, (error) => trouble.fail(error))
  return element
}

function lines(status) {
  const { local, servers } = status
  return [
    line(local.ready ? "ready" : "missing", "Model on this machine", local.words),
    line(...fal(status), "fal"),
    ...servers.slice(1).map((name) => line("ready", name, "Named in servers.json.", name)),
    line("ready", "Preview model", PREVIEW),
  ]
}

function fal({ key, test }) {
  if (key === "none") return ["missing", "fal", "There is no key. Set one below, or in FAL_KEY."]
  if (key === "not usable") return ["broken", "fal", test]
  return ["ready", "fal", `There is a key, ${key}.`]
}

/** One backend; with the name of a server, there is a button that tests it. */
function line(state, name, text, server) {
  const [sign, spoken] = SIGNS[state]
  const quiet = el("span", { class: "or-quiet" }, text)
  const about = el("div", {}, el("strong", {}, name), " ", quiet)
  const signed = el("span", { class: `or-sign or-${state}`, role: "img", "aria-label": spoken }, sign)
  return el("li", {}, signed, about, ...(server ? tester(server, about) : []))
}

function tester(server, about) {
  const outcome = new Outcome()
  const label = `Test ${server}, free of charge`
  const test = button("Test", label, () =>
    attempt(outcome, test, async () => (await postJson("test", { server })).words),
  )
  about.append(outcome.element)
  return [test]
}
