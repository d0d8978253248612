// What the server says of this machine, fetched once for all parts of the page that show it.

import { getJson, postJson } from "../lib/server.mjs"

export const ELSEWHERE =
  "This is set on the machine that ComfyUI runs on. Open ComfyUI there, as http://127.0.0.1 with its port."

let watchers = []
let fetching = null

/**
 * Call `show(status)` with what GET /onereward/status says, now and when it changes, as long as
 * `element` is on the page; `fail(error)` if it cannot be had.
 */
export function watchStatus(element, show, fail) {
  watchers.push({ element, show, fail, seen: false })
  // All parts of the page are drawn in one go and ask together.
  fetching ??= Promise.resolve().then(refresh)
}

/** Fetch it again, and show it everywhere. */
export async function refresh() {
  try {
    const status = await getJson("status")
    tell((watcher) => watcher.show(status))
  } catch (error) {
    tell((watcher) => watcher.fail(error))
  } finally {
    fetching = null
  }
}

/** Store some of the preferences; all parts show what is stored then. Throws ServerError. */
export async function store(preferences) {
  await postJson("preferences", preferences)
  await refresh()
}

/** Why the forms are switched off, if they are. */
export function whyNot(status) {
  if (!status.here) return ELSEWHERE
  return status.preferences ? "" : status.trouble.join(" ")
}

function tell(each) {
  watchers = watchers.filter(({ element, seen }) => element.isConnected || !seen)
  for (const watcher of watchers) {
    watcher.seen = true
    each(watcher)
  }
}
