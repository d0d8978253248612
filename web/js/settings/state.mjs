// The server's status (GET /onereward/status) for the settings page: one request for all sections, and
// every section is notified when it changes.

import { getJson, postJson } from "../lib/server.mjs"

export const ELSEWHERE =
  "This is set on the machine that ComfyUI runs on. Open ComfyUI there, as http://127.0.0.1 with its port."

let watchers = []
let fetching = null

/**
 * Call `show(status)` with the reply of GET /onereward/status, now and when it changes, as long as
 * `element` is on the page; `fail(error)` if it cannot be had.
 */
export function watchStatus(element, show, fail) {
  watchers.push({ element, show, fail, seen: false })
  // All sections are drawn in one go and share one request.
  fetching ??= Promise.resolve().then(refresh)
}

/** Fetch the status again, and notify every section. */
export async function refresh() {
  try {
    const status = await getJson("status")
    notify((watcher) => watcher.show(status))
  } catch (error) {
    notify((watcher) => watcher.fail(error))
  } finally {
    fetching = null
  }
}

/** Store some of the preferences; then all sections show what is stored. Throws ServerError. */
export async function store(preferences) {
  await postJson("preferences", preferences)
  await refresh()
}

/** Why the forms are disabled; empty where they are not. */
export function disabledReason(status) {
  if (!status.here) return ELSEWHERE
  return status.preferences ? "" : status.trouble.join(" ")
}

function notify(call) {
  watchers = watchers.filter(({ element, seen }) => element.isConnected || !seen)
  for (const watcher of watchers) {
    watcher.seen = true
    call(watcher)
  }
}
