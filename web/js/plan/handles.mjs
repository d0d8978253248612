// The eight handles of the extend frame: dragging, arrow keys and accessible names (ARIA).

import { el } from "../lib/dom.mjs"
import { STEP } from "./sides.mjs"

const PLACES = [
  ["left"], ["top"], ["right"], ["bottom"],
  ["top", "left"], ["top", "right"], ["bottom", "right"], ["bottom", "left"],
]
const OUTWARDS = { left: [-1, 0], top: [0, -1], right: [1, 0], bottom: [0, 1] }
const ARROWS = { ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowRight: [1, 0], ArrowDown: [0, 1] }
const FAR = 8 // steps, with Shift
const HELP = "Drag, or use the arrow keys. Shift: 64 px. Alt: both sides. Double-click: 0."

/** The handles of a frame, which has sides, dragging, scale(), move() and settle(). */
export function makeHandles(frame) {
  return PLACES.map((names) => makeHandle(frame, names))
}

/** Set each handle's accessible value: how far its sides are extended. */
export function labelHandles(handles, sides) {
  for (const [index, handle] of handles.entries()) {
    const names = PLACES[index]
    const text = names.map((name) => `${name} ${sides[name]} px`).join(", ")
    if (names.length === 1) {
      handle.setAttribute("aria-valuenow", sides[names[0]])
      handle.setAttribute("aria-valuetext", text)
    } else handle.setAttribute("aria-label", `Extend ${names.join(" ")}: ${text}`)
  }
}

function makeHandle(frame, names) {
  const side = names.length === 1
  const slider = { "aria-valuemin": 0, "aria-valuemax": 16384, "aria-valuenow": 0 }
  const handle = el("div", {
    class: `or-extend-handle ${names.map((name) => `or-${name}`).join(" ")}`,
    tabindex: "0",
    role: side ? "slider" : "button",
    "aria-label": `Extend ${names.join(" ")}`,
    "aria-orientation": side ? (OUTWARDS[names[0]][0] ? "horizontal" : "vertical") : null,
    title: HELP,
    ...(side ? slider : {}),
  })
  handle.addEventListener("pointerdown", (event) => take(frame, names, handle, event))
  handle.addEventListener("keydown", (event) => press(frame, names, event))
  handle.addEventListener("dblclick", (event) => reset(frame, names, event))
  handle.addEventListener("contextmenu", intercept)
  return handle
}

/** Keep an event from ComfyUI's canvas, which would move the node, or delete it. */
function intercept(event) {
  event.preventDefault()
  event.stopPropagation()
}

function take(frame, names, handle, down) {
  if (down.button !== 0 || !frame.sides || frame.dragging) return
  intercept(down)
  handle.focus()
  handle.setPointerCapture(down.pointerId)
  frame.dragging = true
  const start = frame.sides
  const scale = frame.scale() // as the drag starts: moving the frame changes it
  const over = new AbortController()
  const listen = (name, does) => handle.addEventListener(name, does, { signal: over.signal })
  const end = (event) => {
    intercept(event)
    over.abort()
    frame.dragging = false
    frame.settle(start)
  }
  listen("pointermove", (event) => {
    intercept(event)
    const way = [event.clientX - down.clientX, event.clientY - down.clientY]
    frame.move(start, names, outwards(names, way.map((px) => px * scale)), event.altKey)
  })
  listen("pointerup", end)
  listen("lostpointercapture", end)
  listen("keydown", (event) => {
    if (event.key !== "Escape") return
    frame.move(start, names, outwards(names, [0, 0]), false)
    frame.sides = start // as it was, not at the next multiple of 8
    end(event)
  })
}

function press(frame, names, event) {
  const arrow = ARROWS[event.key]
  if (!arrow || !frame.sides || frame.dragging) return
  intercept(event)
  const px = STEP * (event.shiftKey ? FAR : 1)
  const by = outwards(names, arrow.map((way) => way * px))
  const across = names.filter((name) => by[name] !== 0)
  if (!across.length) return
  const start = frame.sides
  frame.move(start, across, by, event.altKey)
  frame.settle(start)
}

function reset(frame, names, event) {
  intercept(event)
  if (!frame.sides) return
  const start = frame.sides
  const by = Object.fromEntries(names.map((name) => [name, -start[name]]))
  frame.move(start, names, by, event.altKey)
  frame.settle(start)
}

/** The outward component of a movement on the picture, for each of these sides. */
function outwards(names, [x, y]) {
  return Object.fromEntries(names.map((name) => [name, OUTWARDS[name][0] * x + OUTWARDS[name][1] * y]))
}
