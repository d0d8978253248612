// An error as the node shows it: the pack's own words, and where they name an input, a way to it.

import { app, command, redraw } from "../lib/comfy.mjs"
import { button } from "../lib/dom.mjs"

const SETTINGS = "Settings"
const NEAR = ["Canvas", "Fal Backend", "Local Backend", "Model Backend"]

/** Text and buttons for a message about this node. `input` names the one at fault, if known. */
export function errorWords(node, message, input) {
  const found = input ? inputLink(node, input) : firstLink(node, message)
  return found ? [message, " ", found] : [message]
}

/** The way to whatever the message names first. */
function firstLink(node, message) {
  const links = [
    ...NEAR.map((name) => [`OneReward ${name}`, () => nodeLink(node, `OneReward${name.replace(" ", "")}`)]),
    ["fal key", () => button("Open settings", "Open ComfyUI's settings", openSettings)],
    [SETTINGS, () => button("Open settings", "Open ComfyUI's settings", openSettings)],
    ...(node.inputs ?? []).map(({ name }) => [name, () => inputLink(node, name)]),
  ]
  const places = links
    .map(([words, make]) => ({ place: placeOf(message, words), make }))
    .filter(({ place }) => place >= 0)
    .sort((one, other) => one.place - other.place)
  for (const { make } of places) {
    const link = make()
    if (link) return link
  }
  return null
}

function placeOf(message, words) {
  return message.search(new RegExp(`\\b${words.replace("_", "[_ ]")}\\b`, "i"))
}

function openSettings() {
  command("Comfy.ShowSettingsDialog")
}

/** To the node that feeds an input; a widget's input has none, and lies on the node itself. */
function inputLink(node, name) {
  const source = sourceOf(node, name)
  return source && button(`Show ${name}`, `Go to ${source.title}, which feeds ${name}`, () => goTo(source))
}

function nodeLink(node, type) {
  const names = (node.inputs ?? []).map(({ name }) => name)
  const found = names.map((name) => sourceOf(node, name)).find((source) => source?.comfyClass === type)
  return found && button(`Show ${found.title}`, `Go to ${found.title}`, () => goTo(found))
}

function sourceOf(node, name) {
  const slot = (node.inputs ?? []).findIndex((input) => input.name === name)
  return slot >= 0 ? node.getInputNode(slot) : null
}

/** Later, because ComfyUI answers a click on a node's panel by selecting that node. */
function goTo(node) {
  setTimeout(() => {
    app.canvas.deselectAll()
    app.canvas.selectNode(node)
    app.canvas.centerOnNode(node)
    redraw()
  })
}
