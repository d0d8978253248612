// Run state of one node, from ComfyUI's execution events: progress, step preview, cached, error.

import { runId } from "../plan/links.mjs"

const TICK = 500 // ms between two looks at the clock

/**
 * @param node the node, whose execution id the events name
 * @param notify called with { text, error, preview, started, cached } at every change; `preview` is the
 *   URL of a step preview, and null once there is none; `started` is true as a run starts, `cached` if
 *   ComfyUI uses the node's cached result
 */
export class RunState {
  #node
  #notify
  #since = 0
  #step = ""
  #timer = 0

  constructor(node, notify) {
    this.#node = node
    this.#notify = notify
  }

  get running() {
    return this.#since > 0
  }

  /** A run of the graph starts; this node is executed later, or not at all. */
  reset() {
    this.#end()
    this.#notify({ started: true, preview: null })
  }

  /** ComfyUI has cached the results of these nodes, and executes none of them again. */
  cached({ nodes }) {
    if (nodes.some((id) => this.#isMe(id))) this.#notify({ cached: true })
  }

  /** ComfyUI executes the node of this id now; null when the run is over. */
  executing(id) {
    if (this.#isMe(id)) this.#start()
    else if (id == null || !this.running) this.#end()
  }

  step({ node, value, max }) {
    if (!this.#isMe(node)) return
    this.#start()
    this.#step = max > 1 ? `Step ${value} of ${max}` : ""
    this.#progress()
  }

  preview({ node, picture }) {
    if (this.#isMe(node)) this.#notify({ preview: picture })
  }

  failed({ node_id, exception_message }) {
    if (this.#isMe(node_id)) this.#notify({ error: exception_message.trim(), preview: null })
    this.#end()
  }

  stopped() {
    if (this.running) this.#notify({ text: "Cancelled.", preview: null })
    this.#end()
  }

  /** The node has its result. */
  finished() {
    this.#end()
  }

  #start() {
    if (this.running) return
    this.#since = performance.now()
    this.#timer = setInterval(() => this.#progress(), TICK)
    this.#progress()
  }

  #end() {
    clearInterval(this.#timer)
    this.#since = 0
    this.#step = ""
  }

  #progress() {
    const seconds = Math.round((performance.now() - this.#since) / 1000)
    this.#notify({ text: [this.#step || "Working", `${seconds} s`].join(", ") })
  }

  #isMe(id) {
    return id != null && String(id) === runId(this.#node)
  }
}
