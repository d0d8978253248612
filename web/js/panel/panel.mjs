// The panel on a task node: a DOM widget with the plan before a run, the result after it, and a status line.

import { redraw } from "../lib/comfy.mjs"
import { CompareView } from "../compare/view.mjs"
import { button, el, useStyle } from "../lib/dom.mjs"
import { errorContent } from "./error_text.mjs"
import { ExtendFrame } from "../plan/extend_frame.mjs"
import { openFullSize } from "../compare/full_size.mjs"
import { PlanFollower } from "../plan/follower.mjs"
import { PlanView } from "../plan/view.mjs"
import { RunState } from "./run_state.mjs"
import { viewUrl } from "../lib/server.mjs"

const TASKS = ["OneRewardFill", "OneRewardRemove", "OneRewardExtend", "OneRewardText"]
const EXTEND = "OneRewardExtend"
const WIDGET = "onereward_panel"
const EMPTY_HEIGHT = 44 // px on the graph
const OPEN_HEIGHT = 280
const GROWS = "widget-expands" // a class of ComfyUI's: such widgets share what height a node has left
const CACHED = "Nothing changed since the last run, so ComfyUI kept its result and did not send it again. "
  + "Change the seed to see one here."
const PLAN = "plan"
const RESULT = "result"

/** Whether a node of the graph gets a panel. */
export function isTaskNode(node) {
  return TASKS.includes(node.comfyClass)
}

/** A node's panel; it lives as long as the node. */
export class NodePanel {
  #node
  #line = el("div", { class: "or-line", role: "status" })
  #chip = el("span", { class: "or-chip" })
  #stage = el("div", { class: "or-stage" })
  #tabs = {}
  #plan
  #compare = new CompareView({ onFullSize: openFullSize })
  #follower
  #open = false
  #placed = false
  #transient = false // the line's text goes once there is a plan
  #badgeText = null

  constructor(node) {
    useStyle("theme.css")
    useStyle("panel.css")
    this.#node = node
    const extend = node.comfyClass === EXTEND
    this.#plan = extend ? new ExtendFrame({ onChange: (text) => this.#extendTo(text) }) : new PlanView()
    this.runs = new RunState(node, (change) => this.#runChanged(change))
    this.#follower = new PlanFollower(node, {
      changed: () => this.#changed(),
      plan: (reply, picture, moved) => this.#planned(reply, picture, moved),
      unknown: (text) => this.#hint(text),
      fail: (error) => this.#planFailed(error),
    })
    this.#mount(extend)
    const { onExecuted } = node
    node.onExecuted = (output) => {
      onExecuted?.call(node, output)
      this.#finished(output)
    }
  }

  /** Whether the node was removed from its graph. Converting it to a subgraph does not call onRemoved. */
  get removed() {
    this.#placed ||= Boolean(this.#node.graph) // not yet, between its creation and its placing
    return this.#placed && !this.#node.graph
  }

  /** Request the plan again if something that it depends on has changed. */
  poll() {
    if (!this.runs.running && !this.#node.flags?.collapsed) this.#follower.poll()
  }

  #mount(extend) {
    const tabs = [this.#tab(PLAN, extend ? "Frame" : "Plan"), this.#tab(RESULT, "Result")]
    this.element = el(
      "div",
      { class: `onereward or-panel or-empty ${GROWS}` },
      el("div", { class: "or-head" }, el("div", { class: "or-tabs", role: "tablist" }, ...tabs), this.#chip),
      this.#stage,
      this.#line,
    )
    this.#tabs[RESULT].disabled = true
    this.#select(PLAN)
    const widget = this.#node.addDOMWidget(WIDGET, "onereward", this.element, {
      serialize: false, // in the prompt
      hideOnZoom: false,
      getMinHeight: () => (this.#open ? OPEN_HEIGHT : EMPTY_HEIGHT),
    })
    widget.serialize = false // in the workflow
  }

  #tab(name, text) {
    const keydown = (event) => this.#keys(event)
    const tab = button(text, text, () => this.#select(name), { role: "tab", keydown })
    this.#tabs[name] = tab
    return tab
  }

  #keys(event) {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return
    event.preventDefault()
    event.stopPropagation()
    const other = this.#tabs[event.key === "ArrowLeft" ? PLAN : RESULT]
    if (other.disabled) return
    other.click()
    other.focus()
  }

  #select(name) {
    for (const [key, tab] of Object.entries(this.#tabs)) tab.setAttribute("aria-selected", key === name)
    const view = name === PLAN ? this.#plan : this.#compare
    if (this.#stage.firstChild !== view.element) this.#stage.replaceChildren(view.element)
  }

  /** Make room for a picture, from the first one on. */
  #expand() {
    if (this.#open) return
    this.#open = true
    this.element.classList.remove("or-empty")
    const node = this.#node
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])])
    redraw()
  }

  /** The user changed something, or runs again: an error about the old state goes. */
  #changed() {
    if (this.#line.classList.contains("or-error")) this.#show("")
  }

  /** A text for as long as the line has no other. */
  #hint(text) {
    if (this.#line.textContent && !this.#transient) return
    this.#show(text)
    this.#transient = true
  }

  #planned(reply, picture, moved) {
    this.#expand()
    this.#plan.show(reply, picture)
    if (this.#transient) this.#show("")
    if (!moved) return
    this.#select(PLAN)
    this.#badge(badgeOf(reply))
  }

  #planFailed(error) {
    this.#plan.fail({ message: "" }) // the line shows the message
    this.#fail(error.message, error.input)
    this.#transient = true
  }

  #extendTo(text) {
    const widget = this.#node.widgets.find(({ name }) => name === "extend_to")
    widget.value = text
    widget.callback?.(text)
    this.#follower.poll()
  }

  #runChanged({ text, error, preview, started, cached }) {
    if (started) this.#changed()
    if (cached && this.#tabs[RESULT].disabled) this.#show(CACHED)
    if (preview) {
      this.#expand()
      this.#select(RESULT)
    }
    if (preview !== undefined) this.#compare.preview(preview)
    if (error) this.#fail(error)
    else if (text !== undefined) this.#show(text)
  }

  #finished(output) {
    const [result] = output?.onereward ?? []
    if (!result) return
    this.runs.finished()
    this.#expand()
    this.#compare.show(result.pairs.map(links), { caption: `${result.size[0]} x ${result.size[1]}` })
    this.#tabs[RESULT].disabled = false
    this.#select(RESULT)
    this.#show(result.summary)
    this.#badge(result.badge)
    this.#follower.again()
  }

  #show(text) {
    this.#transient = false
    this.#line.classList.remove("or-error")
    this.#line.replaceChildren(text)
    this.#line.title = text
  }

  #fail(message, input) {
    this.#transient = false
    this.#line.classList.add("or-error")
    this.#line.replaceChildren(...errorContent(this.#node, message, input))
    this.#line.title = message
  }

  /** In ComfyUI's badge above the node; where ComfyUI has none to offer, in the panel's own chip. */
  #badge(text) {
    this.#chip.textContent = text
    this.#chip.title = text
    const { badges } = this.#node
    if (!window.LGraphBadge || !Array.isArray(badges)) return
    const first = this.#badgeText === null
    this.#badgeText = text
    if (first) badges.push(() => this.#graphBadge())
    redraw()
  }

  #graphBadge() {
    return new window.LGraphBadge({ text: this.#badgeText, fgColor: "#fff", bgColor: "#3b5b7a" })
  }
}

function badgeOf({ kind, backend, price }) {
  if (kind === "preview") return `${backend}: not OneReward`
  if (price == null) return backend
  return `${backend}: ${price === 0 ? "free" : `about $${price.toFixed(3)}`}`
}

function links({ before, after, outline, seed, flagged }) {
  const label = flagged ? `seed ${seed}, refused: this is the input` : `seed ${seed}`
  return { before: viewUrl(before), after: viewUrl(after), outline: viewUrl(outline), label }
}
