// Keeps a node's plan up to date: asks the server again when what it depends on has changed.

import { postJson } from "../lib/server.mjs"
import { pictureUrl, planRequest } from "./sources.mjs"

const NOT_YET = 409 // what the plan depends on is made by a run

/**
 * @param node a task node
 * @param tell { changed(), plan(reply, pictureUrl, moved), unknown(words), fail(ServerError) };
 *   `changed` is called when something is other than at the last look, and `moved` says that the
 *   picture, the mask or the crops are others than before
 */
export class PlanFollower {
  #node
  #tell
  #asked = ""
  #shape = ""
  #running = null
  #quiet = false

  constructor(node, tell) {
    this.#node = node
    this.#tell = tell
  }

  /** Ask again if something changed. Cheap otherwise. */
  look() {
    const { body, why } = planRequest(this.#node)
    const asked = JSON.stringify(body ?? why)
    if (asked === this.#asked) return
    if (this.#asked) this.#tell.changed()
    this.#asked = asked
    this.#running?.abort()
    if (body) this.#ask(body)
    else this.#tell.unknown(why)
  }

  /** The node has run, so the server may know more: ask again, but call nothing moved. */
  again() {
    this.#asked = ""
    this.#quiet = true
  }

  async #ask(body) {
    const running = (this.#running = new AbortController())
    try {
      const reply = await postJson("plan", body, running.signal)
      if (!running.signal.aborted) this.#show(reply, pictureUrl(body))
    } catch (error) {
      if (running.signal.aborted) return
      if (error.status === NOT_YET) this.#tell.unknown(error.message)
      else this.#tell.fail(error)
    }
  }

  #show(reply, picture) {
    const { size, source, crops, overlay } = reply
    const shape = JSON.stringify([size, source, crops, overlay, picture])
    this.#tell.plan(reply, picture, shape !== this.#shape && !this.#quiet)
    this.#shape = shape
    this.#quiet = false
  }
}
