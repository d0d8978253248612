// HTTP requests to the pack's own routes, and the URLs of files that ComfyUI serves.

import { api } from "./comfy.mjs"

/**
 * Why a route refused a request, as a message for the user. `input` names the node's input at fault,
 * if any; `status` is the HTTP status.
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

/** The URL of a file that ComfyUI holds: { filename, subfolder, type }. */
export function viewUrl(file, options = {}) {
  return api.apiURL(`/view?${new URLSearchParams({ subfolder: "", ...file, ...options })}`)
}

async function send(path, options) {
  const reply = await api.fetchApi(`/onereward/${path}`, options)
  const payload = await reply.json().catch(() => ({}))
  if (reply.ok) return payload
  throw new ServerError(payload.error ?? `ComfyUI answered ${reply.status}.`, payload.input, reply.status)
}
