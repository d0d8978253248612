// Settings, job history: which jobs were sent and paid for, and whose pictures are stored on this machine.

import { button, el } from "../lib/dom.mjs"
import { getJson, postJson, viewUrl } from "../lib/server.mjs"
import { Outcome, attempt, hint, money, row, section, size } from "./form.mjs"

const HINT = "The newest 100 jobs. A job whose picture is kept is not paid for again."

/** The section of the page. */
export function jobHistorySection() {
  const outcome = new Outcome()
  const totals = el("p")
  const body = el("tbody")
  const table = el("table", {}, heads("When", "State", "Cost", "Request id", ""), body)
  const attributes = { class: "or-jobs", tabindex: 0, role: "region", "aria-label": "List of jobs" }
  const scroll = el("div", attributes, table)
  const again = button("Refresh", "Read the jobs again", () => load())
  const clear = clearing(outcome, load)
  const buttons = row(again, clear.element)
  const element = section("Jobs", totals, scroll, buttons, hint(HINT), outcome.element)

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
    outcome.show("The request id is copied.")
  } catch {
    // The browser refuses it to a page that came neither by https nor from this machine.
    getSelection().selectAllChildren(text)
    outcome.show("The request id is selected. Press Ctrl+C.")
  }
}

function collecting(job, outcome) {
  const place = el("div")
  const tooltip = `Save the picture of ${job.request_id} to ComfyUI's output folder`
  const collect = button("Collect", tooltip, () => attempt(outcome, collect, fetchPictures))

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

/** A button that deletes the stored pictures after one question. */
function clearing(outcome, load) {
  const element = el("span", { class: "or-row" })
  let sums = { pictures: 0, kept_bytes: 0 }

  const start = button("", "Clear the kept pictures", ask)
  const yes = button("Drop them", "Drop the kept pictures", drop)
  const no = button("Keep them", "Keep the pictures", () => element.replaceChildren(start))

  function ask() {
    const question = `Drop ${stored(sums)}? The same edit, run again, is then sent and paid for again.`
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
    outcome.show(`${size(freed)} are free again. What was paid stays in the list.`)
  }

  function show(found) {
    sums = found
    start.textContent = sums.pictures ? `Clear ${stored(sums)}` : "No pictures are kept"
    start.disabled = !sums.pictures
    element.replaceChildren(start)
  }

  return { element, show }
}

function stored({ pictures, kept_bytes }) {
  return `${pictures} kept ${pictures === 1 ? "picture" : "pictures"} (${size(kept_bytes)})`
}
