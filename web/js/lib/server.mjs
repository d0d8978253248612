// The pack's own routes, and the files that ComfyUI shows.

import { api } from "./comfy.mjs"

/**
 * What a route refused, in words for the user; `input` names the node's input at fault, if any, and
 * `status` is the HTTP status.
 */
export class ServerError extends Error {
  constructor(message, input, status) {
    super(message)
    this.input = input
    this.status = status
  }
}

/** The JSON behind GET /onereward/<path>. Throws ServerError. */
export function getJson(path) {
  return send(path, { method: "GET", cache: "no-store" })
}

/** The JSON that POST /onereward/<path> answers to `body`. Throws ServerError. */
export function postJson(path, body, signal) {
  const headers = { "Content-Type": "application/json" }
  return send(path, { method: "POST", headers, body: JSON.stringify(body), signal })
}

/** Where the page finds a file that ComfyUI holds: { filename, subfolder, type }. */
export function viewUrl(file, options = {}) {
  return api.apiURL(`/view?${new URLSearchParams({ subfolder: "", ...file, ...options })}`)
}

async function send(path, options) {
  const reply = await api.fetchApi(`/onereward/${path}`, options)
  const said = await reply.json().catch(() => ({}))
  if (reply.ok) return said
  throw new ServerError(said.error ?? `ComfyUI answered ${reply.status}.`, said.input, reply.status)
}
