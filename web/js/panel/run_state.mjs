// One node's part in the run that is under way, told from ComfyUI's events.

import { runId } from "../plan/links.mjs"

const TICK = 500 // ms between two looks at the clock

/**
 * @param node the node, whose execution id the events name
 * @param show called with { text, error, live, begun, kept } whenever there is something new to say;
 *   `live` is the URL of a step preview, and null once there is none; `begun` is true as a run
 *   begins, `kept` if it does without the node
 */
export class RunState {
  #node
  #show
  #since = 0
  #step = ""
  #timer = 0

  constructor(node, show) {
    this.#node = node
    this.#show = show
  }

  get running() {
    return this.#since > 0
  }

  /** A run of the graph begins; this node's turn comes later, or not at all. */
  reset() {
    this.#end()
    this.#show({ begun: true, live: null })
  }

  /** ComfyUI has the results of these nodes from before, and runs none of them again. */
  cached({ nodes }) {
    if (nodes.some((id) => this.#isMe(id))) this.#show({ kept: true })
  }

  /** ComfyUI works on the node of this id now; null when it is done with all. */
  executing(id) {
    if (this.#isMe(id)) this.#begin()
    else if (id == null || !this.running) this.#end()
  }

  step({ node, value, max }) {
    if (!this.#isMe(node)) return
    this.#begin()
    this.#step = max > 1 ? `Step ${value} of ${max}` : ""
    this.#tell()
  }

  preview({ node, picture }) {
    if (this.#isMe(node)) this.#show({ live: picture })
  }

  failed({ node_id, exception_message }) {
    if (this.#isMe(node_id)) this.#show({ error: exception_message.trim(), live: null })
    this.#end()
  }

  stopped() {
    if (this.running) this.#show({ text: "Cancelled.", live: null })
    this.#end()
  }

  /** The node has its result. */
  finished() {
    this.#end()
  }

  #begin() {
    if (this.running) return
    this.#since = performance.now()
    this.#timer = setInterval(() => this.#tell(), TICK)
    this.#tell()
  }

  #end() {
    clearInterval(this.#timer)
    this.#since = 0
    this.#step = ""
  }

  #tell() {
    const seconds = Math.round((performance.now() - this.#since) / 1000)
    this.#show({ text: [this.#step || "Working", `${seconds} s`].join(", ") })
  }

  #isMe(id) {
    return id != null && String(id) === runId(this.#node)
  }
}
