// The error message on a node, with a button that leads to the input, the node or the settings it names.

import { app, command, redraw } from "../lib/comfy.mjs"
import { button } from "../lib/dom.mjs"

const SETTINGS = "Settings"
const NEAR = ["Canvas", "Fal Backend", "Local Backend", "Model Backend"]

/** The content of an error line: text and button. `input` names the input at fault, if known. */
export function errorContent(node, message, input) {
  const found = input ? inputLink(node, input) : firstLink(node, message)
  return found ? [message, " ", found] : [message]
}

/** A button to whatever the message names first. */
function firstLink(node, message) {
  const links = [
    ...NEAR.map((name) => [`OneReward ${name}`, () => nodeLink(node, `OneReward${name.replace(" ", "")}`)]),
    ["fal key", () => button("Open settings", "Open ComfyUI's settings", openSettings)],
    [SETTINGS, () => button("Open settings", "Open ComfyUI's settings", openSettings)],
    ...(node.inputs ?? []).map(({ name }) => [name, () => inputLink(node, name)]),
  ]
  const found = links
    .map(([phrase, make]) => ({ index: indexOf(message, phrase), make }))
    .filter(({ index }) => index >= 0)
    .sort((one, other) => one.index - other.index)
  for (const { make } of found) {
    const link = make()
    if (link) return link
  }
  return null
}

function indexOf(message, phrase) {
  return message.search(new RegExp(`\\b${phrase.replace("_", "[_ ]")}\\b`, "i"))
}

function openSettings() {
  command("Comfy.ShowSettingsDialog")
}

/** A button to the node that feeds an input; null for a widget's own value, which is on this node. */
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
