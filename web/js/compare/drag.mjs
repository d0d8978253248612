// Pointer drags (pointer capture) that are hidden from ComfyUI's canvas below.

/**
 * Follow pointers that go down on `element` until they are let go, also outside of it.
 * `begin(event)` returns what to call with every move, or nothing to leave the press to others;
 * `end(event)` is called once for each press that was followed.
 */
export function onDrag(element, begin, end = () => {}) {
  // Else the browser would move the focus away, and drag the picture out as a file.
  element.addEventListener("mousedown", (event) => event.button !== 2 && event.preventDefault())
  element.addEventListener("pointerdown", (event) => {
    const follow = begin(event)
    if (!follow) return
    stopPropagation(event)
    hold(element, event.pointerId, follow, end)
  })
}

/** Hide an event from the elements around. */
export function stopPropagation(event) {
  event.stopPropagation()
}

function hold(element, pointerId, follow, end) {
  const holding = new AbortController()
  const on = (name, handle) => element.addEventListener(name, handle, { signal: holding.signal })
  const own = (handle) => (event) => {
    stopPropagation(event)
    if (event.pointerId === pointerId) handle(event)
  }
  element.setPointerCapture(pointerId)
  element.classList.add("orc-dragging")
  on("pointermove", own(follow))
  on("pointerup", stopPropagation)
  on("contextmenu", stopPropagation)
  on("lostpointercapture", own((event) => {
    holding.abort()
    element.classList.remove("orc-dragging")
    end(event)
  }))
}
