// Drags that stay ours: ComfyUI's canvas below hears nothing of them.

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
    keep(event)
    hold(element, event.pointerId, follow, end)
  })
}

/** Let no element around hear of this event. */
export function keep(event) {
  event.stopPropagation()
}

function hold(element, pointerId, follow, end) {
  const holding = new AbortController()
  const on = (name, handle) => element.addEventListener(name, handle, { signal: holding.signal })
  const ours = (handle) => (event) => {
    keep(event)
    if (event.pointerId === pointerId) handle(event)
  }
  element.setPointerCapture(pointerId)
  element.classList.add("orc-dragging")
  on("pointermove", ours(follow))
  on("pointerup", keep)
  on("contextmenu", keep)
  on("lostpointercapture", ours((event) => {
    holding.abort()
    element.classList.remove("orc-dragging")
    end(event)
  }))
}
