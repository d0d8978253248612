// Settings, jobs: what was sent and paid for, and what of it is kept here.

import { button, el } from "../lib/dom.mjs"
import { getJson, postJson, viewUrl } from "../lib/server.mjs"
import { Outcome, attempt, hint, money, part, row, size } from "./parts.mjs"

const WORDS = "The newest 100 jobs. A job whose picture is kept is not paid for again."

/** The part of the page. */
export function journalPart() {
  const outcome = new Outcome()
  const totals = el("p")
  const body = el("tbody")
  const table = el("table", {}, heads("When", "State", "Cost", "Request id", ""), body)
  const attributes = { class: "or-jobs", tabindex: 0, role: "region", "aria-label": "List of jobs" }
  const scroll = el("div", attributes, table)
  const again = button("Refresh", "Read the jobs again", () => load())
  const clear = clearing(outcome, load)
  const buttons = row(again, clear.element)
  const element = part("Jobs", totals, scroll, buttons, hint(WORDS), outcome.element)

  function load() {
    return attempt(outcome, again, async () => {
      const { jobs, totals: sums } = await getJson("journal")
      body.replaceChildren(...jobs.map((job) => line(job, outcome)))
      scroll.hidden = !jobs.length
      totals.textContent = jobs.length ? spent(sums) : "No job was sent yet."
      clear.show(sums)
      return ""
    })
  }

  load()
  return element
}

function spent({ session, month }) {
  return `${money(session)} since ComfyUI started, ${money(month)} in 30 days, jobs under way included.`
}

function heads(...names) {
  return el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name))))
}

function line(job, outcome) {
  const more = [job.server === "fal" ? "" : job.server, job.about].filter(Boolean).join(", ")
  return el(
    "tr",
    {},
    el("td", {}, when(job.created)),
    el("td", {}, job.state, el("div", { class: "or-quiet" }, more)),
    el("td", {}, price(job)),
    el("td", {}, ...name(job.request_id, outcome)),
    el("td", {}, job.collectable ? collecting(job, outcome) : null),
  )
}

function when(seconds) {
  return new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" })
}

function price({ cost, estimate }) {
  if (cost != null) return money(cost)
  return estimate == null ? "unknown" : `about ${money(estimate)}`
}

/** The id, short, and a button that copies all of it. */
function name(id, outcome) {
  if (!id) return ["\u2013"]
  const text = el("code", { title: id }, id)
  return [text, button("Copy", `Copy the request id ${id}`, () => copy(text, id, outcome))]
}

async function copy(text, id, outcome) {
  try {
    await navigator.clipboard.writeText(id)
    outcome.say("The request id is copied.")
  } catch {
    // Pages that came neither by https nor from this machine may not.
    getSelection().selectAllChildren(text)
    outcome.say("The request id is selected. Press Ctrl+C.")
  }
}

function collecting(job, outcome) {
  const place = el("div")
  const words = `Save the picture of ${job.request_id} to ComfyUI's output folder`
  const collect = button("Collect", words, () => attempt(outcome, collect, fetchPictures))

  async function fetchPictures() {
    const files = await postJson("journal/collect", { request_id: job.request_id })
    place.replaceChildren(...files.map(opener))
    return `Saved to the output folder: ${files.map(({ filename }) => filename).join(", ")}.`
  }

  place.append(collect)
  return place
}

function opener(file) {
  const link = { href: viewUrl(file), target: "_blank", rel: "noopener", title: file.filename }
  return el("a", link, "Open picture")
}

/** A button that asks once before it drops what is kept. */
function clearing(outcome, load) {
  const element = el("span", { class: "or-row" })
  let sums = { pictures: 0, kept_bytes: 0 }

  const start = button("", "Clear the kept pictures", ask)
  const yes = button("Drop them", "Drop the kept pictures", drop)
  const no = button("Keep them", "Keep the pictures", () => element.replaceChildren(start))

  function ask() {
    const question = `Drop ${kept(sums)}? The same edit, run again, is then sent and paid for again.`
    element.replaceChildren(el("span", { role: "alert" }, question), yes, no)
    no.focus()
  }

  async function drop() {
    let freed = 0
    const done = await attempt(outcome, yes, async () => {
      freed = (await postJson("journal/clear", {})).freed
      return ""
    })
    element.replaceChildren(start)
    if (!done) return
    await load()
    outcome.say(`${size(freed)} are free again. What was paid stays in the list.`)
  }

  function show(found) {
    sums = found
    start.textContent = sums.pictures ? `Clear ${kept(sums)}` : "No pictures are kept"
    start.disabled = !sums.pictures
    element.replaceChildren(start)
  }

  return { element, show }
}

function kept({ pictures, kept_bytes }) {
  return `${pictures} kept ${pictures === 1 ? "picture" : "pictures"} (${size(kept_bytes)})`
}
