// Client-side polling of a node's plan: a request to the server whenever what the plan depends on has
// changed. A newer request aborts the one before.

import { postJson } from "../lib/server.mjs"
import { pictureUrl, planRequest } from "./sources.mjs"

const NOT_YET = 409 // Conflict: what the plan depends on is made by a run

/**
 * @param node a task node
 * @param notify { changed(), plan(reply, pictureUrl, moved), unknown(text), fail(ServerError) };
 *   `changed` is called when something differs from the last poll, and `moved` is true if the
 *   picture, the mask or the crops differ from the last plan
 */
export class PlanFollower {
  #node
  #notify
  #requested = ""
  #shape = ""
  #running = null
  #quiet = false

  constructor(node, notify) {
    this.#node = node
    this.#notify = notify
  }

  /** Request the plan again if something changed; cheap otherwise. */
  poll() {
    const { body, why } = planRequest(this.#node)
    const requested = JSON.stringify(body ?? why)
    if (requested === this.#requested) return
    if (this.#requested) this.#notify.changed()
    this.#requested = requested
    this.#running?.abort()
    if (body) this.#request(body)
    else this.#notify.unknown(why)
  }

  /** After a run the server may know more: the next poll requests the plan again, as not moved. */
  again() {
    this.#requested = ""
    this.#quiet = true
  }

  async #request(body) {
    const running = (this.#running = new AbortController())
    try {
      const reply = await postJson("plan", body, running.signal)
      if (!running.signal.aborted) this.#show(reply, pictureUrl(body))
    } catch (error) {
      if (running.signal.aborted) return
      if (error.status === NOT_YET) this.#notify.unknown(error.message)
      else this.#notify.fail(error)
    }
  }

  #show(reply, picture) {
    const { size, source, crops, overlay } = reply
    const shape = JSON.stringify([size, source, crops, overlay, picture])
    this.#notify.plan(reply, picture, shape !== this.#shape && !this.#quiet)
    this.#shape = shape
    this.#quiet = false
  }
}
